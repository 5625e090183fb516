"""machine image ls, pull, rm, prune: the cache of images, and what can come into it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machine.cli import iso
from machine.cli.options import Architecture, quiet_option
from machine.cli.tables import print_columns
from machine.progress import Display

if TYPE_CHECKING:
    from machine.images.cache import ImageInfo


@click.group()
def image() -> None:
    """Manage the cache of images that machines boot, machineos and others."""


image.add_command(iso.list_, "ls")
image.add_command(iso.rm, "rm")


@image.command()
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "user", "format", "url", "cached": bool}].')
def catalog(as_json: bool) -> None:
    """List the cloud images that are known by name, for this host's processor."""
    from machine.images import catalog

    found = [(entry, catalog.cached(entry.source) is not None) for entry in catalog.entries()]
    if as_json:
        objects = [
            {"name": entry.name, "user": entry.user, "format": entry.format, "url": entry.source.url, "cached": there}
            for entry, there in found
        ]
        print(json.dumps(objects, indent=4))
        return
    rows = [[entry.name, "yes" if there else "no", entry.source.url] for entry, there in found]
    print_columns([["NAME", "CACHED", "FROM"], *rows])


@image.command()
@click.option(
    "--arch", type=Architecture(), metavar="NAME", help="Its processor: x86_64 or aarch64; default: this host's."
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the image, as `machine image ls --json` does.")
@click.argument("source", metavar="NAME|URL#sha256=...|FILE")
def pull(source: str, arch: str | None, quiet: bool, as_json: bool) -> None:
    """Download an image into the cache, unless it is there.

    An interrupted download continues where it stopped. The digest is checked against the publisher's.
    """
    from machine.images import catalog
    from machine.resources import human

    with Display(quiet=quiet or as_json) as display, display.of(source.partition("#")[0]) as shown:
        about = catalog.obtain(source, shown, architecture=arch or "")
    if as_json:
        print(json.dumps(dataclasses.asdict(about), indent=2))
    elif not quiet:
        print(f"{about.name} {about.architecture} {human(max(1, about.size >> 20))} sha256:{about.digest}")


@dataclasses.dataclass(frozen=True)
class _Prunable:
    """unused and kept are images; kept ones with the missing stores that used them."""

    unused: list[ImageInfo]
    kept: dict[ImageInfo, list[str]]
    downloads: list[Path]


@image.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would be removed.")
@click.option("--gone", is_flag=True, help="Also remove images that only missing stores used.")
@click.option("--json", "as_json", is_flag=True, help='Print {"images": [name], "downloads": [file], "kept": [name]}.')
def prune(dry_run: bool, gone: bool, as_json: bool) -> None:
    """Remove images that no machine boots, except the newest of each name, and parts of interrupted downloads.

    Machines of other stores that share the cache count. A missing store may be on a disk that isn't mounted, so the
    images that it used are kept and listed.
    """
    from machine.images import cache

    found = _prunable(gone=gone)
    if not dry_run:
        for about in found.unused:
            cache.remove(about)
        for half in found.downloads:
            half.unlink(missing_ok=True)
    if as_json:
        names = {"images": found.unused, "kept": found.kept}
        shown = {key: [f"{about.name} {about.digest}" for about in abouts] for key, abouts in names.items()}
        print(json.dumps({**shown, "downloads": [str(half) for half in found.downloads]}, indent=4))
        return
    word = "Would remove" if dry_run else "Removed"
    for about in found.unused:
        print(f"{word} {about.name} {about.digest[:12]}")
    if found.downloads:
        print(f"{word} {len(found.downloads)} unfinished downloads")
    for about, stores in found.kept.items():
        print(f"Kept {about.name} {about.digest[:12]}, used by {', '.join(stores)}, which is missing now", end="")
        print(" (machine image prune --gone)")


def _prunable(*, gone: bool) -> _Prunable:
    from machine import paths
    from machine.images import cache, downloads
    from machine.images import users as image_users
    from machine.images.users import Now

    unused, kept = [], {}
    for about in cache.cached():
        users = [] if _is_newest(about) else image_users.users(about.digest)
        lost = [str(user.store) for user in users if user.now is Now.GONE]
        if _is_newest(about) or len(lost) < len(users):
            continue
        if lost and not gone:
            kept[about] = lost
        else:
            unused.append(about)
    return _Prunable(unused, kept, [Path(half) for half in downloads.left_over(paths.images())])


def _is_newest(about: ImageInfo) -> bool:
    from machine.errors import NoSuchImage
    from machine.images import cache

    try:
        return cache.current(about.name, about.architecture).digest == about.digest
    except NoSuchImage:
        return False

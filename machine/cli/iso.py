"""machine iso build, ls, rm: the machines' operating system."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machine.cli.options import Architecture, quiet_option
from machine.cli.tables import print_columns
from machine.errors import Usage

if TYPE_CHECKING:
    from machine.images.cache import ImageInfo


@click.group()
def iso() -> None:
    """Build and manage machineos, the machines' operating system."""


@iso.command()
@click.option(
    "--arch", type=Architecture(), metavar="NAME", help="Its processor: x86_64 or aarch64; default: this host's."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Copy the ISO and its manifest to this folder too."
)
@click.option("--if-missing", is_flag=True, help="Do nothing if the cache has one with this recipe.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print what was built, as `machine iso ls --json` does.")
def build(arch: str | None, output: Path | None, if_missing: bool, quiet: bool, as_json: bool) -> None:
    """Build machineos from Debian's packages (needs Debian or Ubuntu; takes a few minutes)."""
    from machine import resources
    from machine.images import cache, machineos

    if if_missing and machineos.is_cached(arch or ""):
        if as_json:
            print(
                json.dumps(dataclasses.asdict(cache.find(cache.current(machineos.NAME, arch or "").digest)), indent=2)
            )
        return
    began = time.monotonic()

    def say(text: str) -> None:
        if not quiet and not as_json:
            print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    about = machineos.build(arch or resources.architecture(), say, output=output)
    if as_json:
        print(json.dumps(dataclasses.asdict(about), indent=2))
    elif not quiet:
        print(f"{about.name} {about.architecture} {resources.human(about.size >> 20)} sha256:{about.digest}")


@iso.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print digests only.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects: name, digest, size, created, ...")
def list_(quiet: bool, as_json: bool) -> None:
    """List the images in the cache."""
    from machine.images import cache
    from machine.resources import human

    found = list(cache.cached())
    if as_json:
        print(json.dumps([dataclasses.asdict(about) for about in found], indent=2))
        return
    if quiet:
        for about in found:
            print(about.digest)
        return
    rows = [
        [about.name, about.digest[:12], about.architecture, human(about.size >> 20), about.created, _users(about)]
        for about in found
    ]
    print_columns([["NAME", "DIGEST", "ARCH", "SIZE", "CREATED", "USED BY"], *rows])


def _users(about: ImageInfo) -> str:
    from machine.images import users as image_users

    return "; ".join(map(str, image_users.users(about.digest)))


@iso.command()
@click.option("-f", "--force", is_flag=True, help="Also remove an image that a machine boots.")
@click.argument("image")
def rm(image: str, force: bool) -> None:
    """Remove IMAGE (a name, or the beginning of a digest) from the cache."""
    from machine.images import cache
    from machine.images import users as image_users

    about = cache.find(image)
    users = image_users.users(about.digest)
    used = [str(user) for user in users if user.now is not image_users.Now.GONE]
    if used and not force:
        raise Usage(
            f"the image {about.digest[:12]} is used by {'; '.join(used)}",
            hint="remove the machines first, or insist: machine iso rm -f " + image,
        )
    for gone in (user for user in users if user.now is image_users.Now.GONE):
        print(f"note: it was used by {gone}", file=sys.stderr)
    cache.remove(about)
    print(f"Removed {about.name} {about.digest[:12]}")

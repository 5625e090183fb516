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
from machine.errors import CheckFailed, Usage

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
@click.option(
    "--in-machine",
    is_flag=True,
    help="Build inside a machine of QEMU: on macOS and every Linux. It is removed afterwards.",
)
@click.option("--driver", metavar="NAME", envvar="MACHINE_DRIVER", help="Of that machine.  [env: MACHINE_DRIVER]")
@click.option("--builder-image", metavar="IMAGE", help="What that machine boots: a Debian.  [default: debian-13]")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print what was built, as `machine iso ls --json` does.")
def build(
    arch: str | None,
    output: Path | None,
    if_missing: bool,
    in_machine: bool,
    driver: str | None,
    builder_image: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build machineos from Debian's packages, here or inside a machine.

    Here it needs Debian or Ubuntu, and takes a few minutes. On other systems it asks whether to build inside a machine
    that boots Debian's cloud image; --in-machine answers this.
    """
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

    wanted = arch or resources.architecture()
    if in_machine or _is_confirmed(machineos.why_not_here(), driver, wanted):
        about = _build_in_machine(wanted, driver, builder_image, output, quiet=quiet or as_json)
    else:
        about = machineos.build(wanted, say, output=output)
    if as_json:
        print(json.dumps(dataclasses.asdict(about), indent=2))
    elif not quiet:
        print(f"{about.name} {about.architecture} {resources.human(about.size >> 20)} sha256:{about.digest}")


def _is_confirmed(why: str, driver: str | None, architecture: str) -> bool:
    """Whether to build inside a machine, for the reason why; False when nothing keeps this host from it.

    Raises CheckFailed when the user doesn't want that, or can't be asked.
    """
    from machine import registry
    from machine.cli.ask import confirmed
    from machine.cli.driver_options import default_driver
    from machine.images import cache

    if not why:
        return False
    if not registry.load(driver or default_driver()).cloud_images:
        raise CheckFailed(why, hint=cache.remedy(architecture))
    hint = "machine iso build --in-machine"
    question = f"{why}. Build inside a machine, which boots Debian's cloud image (some 400 MB to download)?"
    try:
        if confirmed(question, hint=hint, out=sys.stderr):
            return True
    except Usage:
        pass
    raise CheckFailed(why, hint=hint)


def _build_in_machine(
    architecture: str, driver: str | None, image: str | None, output: Path | None, *, quiet: bool
) -> ImageInfo:
    from machine import create
    from machine.cli.driver_options import default_driver
    from machine.images import builder, catalog, machineos
    from machine.progress import Display

    with Display(quiet=quiet) as display, display.of(builder.NAME) as progress:
        boots = catalog.obtain(image or builder.IMAGE, progress).digest
        asked = create.draft(
            builder.NAME,
            driver or default_driver(),
            boots,
            memory_mib=builder.MEMORY_MIB,
            cpus=builder.CPUS,
            disk_mib=builder.DISK_MIB,
        )
        with create.temporary(asked, progress, timeout=builder.BOOT) as instance:

            def make(folder: Path) -> Path:
                return builder.build(instance.shell(), architecture, progress, folder)

            return machineos.take_built(architecture, make, output=output)


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

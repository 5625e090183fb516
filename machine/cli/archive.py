"""machine export and import."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from machine import probe, store
from machine.cli import names
from machine.errors import MachineError, Usage
from machine.progress import Display

if TYPE_CHECKING:
    from machine.paths import Home
    from machine.spec import Machine

PIPE = "-"


@click.command()
@click.option("-z", "--gzip", "compress", is_flag=True, help="Compress it.")
@click.option("--no-image", is_flag=True, help="Without the image that it boots: whoever imports it must have that.")
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "file", "size"} (bytes).')
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def export(name: str, file: Path, compress: bool, no_image: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Write a stopped machine into FILE (- for stdout): its disk, its keys, and the image that it boots.

    Whoever has the file can log in to the machine: it is readable by you only.
    """
    from machine import archive, files

    names.one(name)
    to_pipe = str(file) == PIPE
    if not to_pipe and file.exists() and not force:
        raise Usage(f"{file} is there already", hint=f"machine export --force {name} {file}")
    if to_pipe and sys.stdout.isatty():
        raise Usage("a terminal is no place for a disk", hint=f"machine export {name} {name}.machine")
    part = file.with_name(f".{file.name}.part")
    with store.changing(name) as machine, Display(quiet=quiet or as_json) as display:
        home, shown = store.home(name), display.of(name)
        backend = probe.driver(machine, home)
        if not backend.portable:
            raise Usage(
                f"{machine.driver} machines can't be exported: their disks lie outside of the store",
                hint="move the volumes with docker: docker run --rm -v VOLUME:/v IMAGE tar c /v",
            )
        archive.check_stopped(name, backend.state())

        def write(out: IO[bytes]) -> None:
            archive.write(machine, home, out, shown, compress=compress, image=not no_image)

        try:
            if to_pipe:
                write(sys.stdout.buffer)
            else:
                part.unlink(missing_ok=True)
                part.touch(mode=0o600)
                with part.open("wb") as out:
                    write(out)
                files.move(part, file)
        finally:
            shown.done()
            if not to_pipe:
                part.unlink(missing_ok=True)
    if as_json and not to_pipe:
        print(json.dumps({"name": name, "file": str(file), "size": file.stat().st_size}, indent=4))
    elif not quiet and not to_pipe:
        print(f"Exported {name} to {file}")


@click.command("import")
@click.option("-n", "--name", help="Another name than the one that it had.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the machine.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def import_(file: Path, name: str | None, quiet: bool, as_json: bool) -> None:
    """Make a machine from FILE (- for stdin), which `machine export` wrote. It is stopped then, or nothing is left.

    It gets an address of this store, and certificates of this store's CA.
    """
    from machine import archive, lifecycle
    from machine.create import check, placed

    with Display(quiet=quiet or as_json) as display:
        shown = display.of(name or file.name)

        def finish(machine: Machine, home: Home) -> None:
            check(machine, shown)
            backend = lifecycle.driver(machine, home)
            backend.say, backend.advance = shown.note, shown.advance
            backend.create()

        try:
            with sys.stdin.buffer if str(file) == PIPE else _opened(file) as source:
                made = archive.read(source, name, shown, place=placed, finish=finish, undo=lifecycle.undo)
        finally:
            shown.done()
    if as_json:
        print(json.dumps(dataclasses.asdict(made), indent=2))
    elif not quiet:
        print(f"Imported {made.name}. To start it, run: machine start {made.name}")


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except FileNotFoundError as error:
        raise MachineError(f"there is no file {file}", hint="machine export NAME FILE") from error

"""machine export and import."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from machine.cli import targets
from machine.cli.options import Number, Size, quiet_option
from machine.errors import MachineError, Usage
from machine.instance import changing
from machine.progress import Display

if TYPE_CHECKING:
    from machine.archive.unpack import Incoming
    from machine.instance import Instance
    from machine.spec import Machine

PIPE = "-"


@click.command()
@click.option("-z", "--gzip", "compress", is_flag=True, help="Compress it.")
@click.option("--no-image", is_flag=True, help="Leave out the image that it boots. The importing host must have it.")
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "file", "size"} (bytes).')
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def export(name: str, file: Path, compress: bool, no_image: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Write a stopped machine into FILE (- for stdout): its disk, its keys, and the image that it boots.

    Whoever has the file can log in to the machine, so only you can read it. The snapshots of a QEMU machine are
    included without their memory. Of a VirtualBox machine, and one of lxc, only the present state of the disk is.
    """
    from machine.archive import pack

    targets.one(name)
    to_pipe = str(file) == PIPE
    if not to_pipe and file.exists() and not force:
        raise Usage(f"{file} already exists", hint=f"machine export --force {name} {file}")
    if to_pipe and sys.stdout.isatty():
        raise Usage("export doesn't write to a terminal", hint=f"machine export {name} {name}.machine")
    with changing(name) as instance, Display(quiet=quiet or as_json) as display, display.of(name) as shown:
        instance.driver.say = shown.phase
        pack.portable(instance.driver)
        pack.check_stopped(name, instance.driver.state())
        with _pipe() if to_pipe else _replacing(file) as out:
            pack.write(instance, out, shown, compress=compress, image=not no_image)
    if as_json and not to_pipe:
        print(json.dumps({"name": name, "file": str(file), "size": file.stat().st_size}, indent=4))
    elif not quiet and not to_pipe:
        print(f"Exported {name} to {file}")


@contextmanager
def _pipe() -> Iterator[IO[bytes]]:
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextmanager
def _replacing(file: Path) -> Iterator[IO[bytes]]:
    """A file that replaces file at the end of the block; an error leaves file unchanged, and nothing else."""
    from machine import files

    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    try:
        part.touch(mode=0o600)
        with part.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        files.move(part, file)
    finally:
        part.unlink(missing_ok=True)


@click.command("import")
@click.option("-n", "--name", metavar="NAME", help="A new name for the machine.")
@click.option("-m", "--memory", "memory_mib", type=Size(), help="A new size of the memory: MiB, or 8G.")
@click.option("--cpus", type=Number(), help="A new number of virtual processors.")
@click.option("--isolated", is_flag=True, help="Remove shared folders and all else that lets it reach this host.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask: allow all that its file lets it reach on this host.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print the machine.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def import_(
    file: Path,
    name: str | None,
    memory_mib: int | None,
    cpus: int | None,
    isolated: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a stopped machine from FILE (- for stdin), which `machine export` wrote.

    It gets a new identity, a new address, and certificates of this store's CA. An error leaves nothing behind. Because
    a file may come from anybody, import shows what the machine would reach on this host (a shared folder, a bridged
    network, Docker without TLS), and asks.
    """
    from machine.archive.unpack import Incoming
    from machine.create import draft

    with _opened(file) as source:
        incoming = Incoming(source, name, draft)
        asked = incoming.machine
        incoming.machine = dataclasses.replace(
            asked, memory_mib=memory_mib or asked.memory_mib, cpus=asked.cpus if cpus is None else cpus
        )
        _settle(incoming, file, isolated=isolated, yes=yes)
        made = _made(incoming, quiet=quiet or as_json)
    if as_json:
        print(json.dumps(dataclasses.asdict(made), indent=2))
    elif not quiet:
        print(f"Imported {made.name}. To start it, run: machine start {made.name}")


def _made(incoming: Incoming, *, quiet: bool) -> Machine:
    from machine import lifecycle
    from machine.create import check_host, check_image, placed

    with Display(quiet=quiet) as display, display.of(incoming.machine.name) as shown:

        def finish(instance: Instance) -> None:
            check_image(instance)
            driver = instance.driver
            driver.say, driver.advance = shown.note, shown.advance
            driver.create()

        try:
            check_host(incoming.wanted(), shown)
        except MachineError as error:
            if incoming.machine.mounts and "--mount" in error.hint:
                error.hint = "without its shared folders: machine import --isolated FILE"
            raise
        return incoming.make(shown, place=placed, finish=finish, undo=lifecycle.undo)


def _settle(incoming: Incoming, file: Path, *, isolated: bool, yes: bool) -> None:
    """Ask the user what the machine may reach. Raises Usage when nobody can be asked, MachineError after a no."""
    reaches = incoming.reaches()
    if isolated:
        for reach in reaches:
            incoming.machine = reach.without(incoming.machine)
        return
    if yes or not reaches:
        return
    name, shown = incoming.machine.name, "\n".join(f"  {reach.what}" for reach in reaches)
    again = shlex.join(["--name", name, str(file)])
    if not sys.stdin.isatty() or str(file) == PIPE:
        raise Usage(
            f'the machine "{name}" asks for access to this host',
            details=shown,
            hint=f"without this access: machine import --isolated {again}; with it: machine import --yes {again}",
        )
    print(f'The machine "{name}" asks for access to this host:\n{shown}', file=sys.stderr)
    if not click.confirm("Allow this?", err=True):
        raise MachineError("not imported", hint=f"without this access: machine import --isolated {again}")


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == PIPE:
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except FileNotFoundError as error:
        raise MachineError(f"there is no file {file}", hint="machine export NAME FILE") from error
    with source:
        yield source

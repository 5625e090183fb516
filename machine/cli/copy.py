"""machine scp and mount."""

from __future__ import annotations

from pathlib import Path

import click

from machine.cli import targets
from machine.errors import Usage


@click.command()
@click.option("-r", "--recursive", is_flag=True, help="Copy folders with all that is in them.")
@click.option("-d", "--delta", is_flag=True, help="Use rsync, which sends only differences.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("source", metavar="[[USER@]MACHINE:]PATH")
@click.argument("target", metavar="[[USER@]MACHINE:]PATH")
def scp(source: str, target: str, recursive: bool, delta: bool, quiet: bool) -> None:
    """Copy files from or to a machine, or from one machine to another.

    A path on a machine that doesn't begin with a slash is relative to the home folder. `localhost:` is this host.
    """
    from machine import transfer

    places = [transfer.place(source), transfer.place(target)]
    if not any(place.machine for place in places):
        raise Usage("one of the two paths must be on a machine", hint="machine scp notes.txt default:")
    for place in places:
        if place.machine:
            targets.one(place.machine)
    targets.exit_with(transfer.copy(*places, recursive=recursive, delta=delta, quiet=quiet))


@click.command()
@click.option("-u", "--unmount", is_flag=True, help="Unmount it.")
@click.argument("source", metavar="[MACHINE:]PATH")
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
def mount(source: str, mountpoint: Path | None, unmount: bool) -> None:
    """Show a folder of a machine in a folder of this host, by sshfs.

    MOUNTPOINT is PATH by default; it is made if it doesn't exist.
    """
    from machine import transfer

    place = transfer.place(source)
    chosen = mountpoint or Path(place.path)
    if unmount:
        transfer.unmount(chosen)
        return
    transfer.mount(transfer.Place(place.path, targets.one(place.machine), place.user), chosen)

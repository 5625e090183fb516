"""machine scp and mount."""

from __future__ import annotations

from pathlib import Path

import click

from machine.cli import targets
from machine.errors import Usage


@click.command()
@click.option("-r", "--recursive", is_flag=True, help="Folders, with all that is in them.")
@click.option("-d", "--delta", is_flag=True, help="By rsync: only what differs is sent.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("source", metavar="[[USER@]MACHINE:]PATH")
@click.argument("target", metavar="[[USER@]MACHINE:]PATH")
def scp(source: str, target: str, recursive: bool, delta: bool, quiet: bool) -> None:
    """Copy files from or to a machine, or from one machine to another.

    A path that doesn't begin with a slash begins in the home folder there. `localhost:` is this host.
    """
    from machine import transfer

    places = [transfer.place(source), transfer.place(target)]
    if not any(place.machine for place in places):
        raise Usage("neither of the two is on a machine", hint="machine scp notes.txt default:")
    for place in places:
        if place.machine:
            targets.one(place.machine)
    targets.exit_with(transfer.copy(*places, recursive=recursive, delta=delta, quiet=quiet))


@click.command()
@click.option("-u", "--unmount", is_flag=True, help="End it.")
@click.argument("source", metavar="[MACHINE:]PATH")
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
def mount(source: str, mountpoint: Path | None, unmount: bool) -> None:
    """Show a folder of a machine in a folder of this host, by sshfs.

    MOUNTPOINT is PATH when it is left out; it is made if it isn't there.
    """
    from machine import transfer

    place = transfer.place(source)
    chosen = mountpoint or Path(place.path)
    if unmount:
        transfer.unmount(chosen)
        return
    transfer.mount(transfer.Place(place.path, targets.one(place.machine), place.user), chosen)

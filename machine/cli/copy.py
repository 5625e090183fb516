"""machine scp."""

from __future__ import annotations

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

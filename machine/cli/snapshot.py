"""machine snapshot create, ls, restore, rm."""

from __future__ import annotations

import dataclasses
import json

import click

from machine.cli import targets
from machine.cli.life import on_each, quiet
from machine.cli.options import timeout_option
from machine.cli.tables import print_columns
from machine.progress import Progress

name_argument = click.argument("name", metavar="NAME")
snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT")


@click.group()
def snapshot() -> None:
    """Save a machine's disk, and its memory if it runs, under a name, and restore them."""


@snapshot.command()
@quiet
@name_argument
@snapshot_argument
def create(name: str, snapshot: str, quiet: bool) -> None:
    """Save the machine's present state. A running machine continues afterwards."""
    from machine import capabilities

    def work(name: str, shown: Progress) -> str:
        capabilities.take(name, snapshot, shown)
        return f'The snapshot "{snapshot}" of "{name}" was made.'

    on_each([targets.one(name)], quiet, work)


@snapshot.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "created", "running"}].')
@click.argument("name", metavar="[NAME]", required=False)
def list_(name: str | None, quiet: bool, as_json: bool) -> None:
    """List the machine's snapshots, oldest first."""
    from machine import capabilities
    from machine.instance import load

    name = targets.one(name)
    found = capabilities.list_all(name)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=4))
    elif quiet:
        for one in found:
            print(one.name)
    else:
        of_running = "memory and disk" if load(name).driver.kind.keeps_memory else "disk, to boot from"
        rows = [[one.name, one.created, of_running if one.running else "disk"] for one in found]
        print_columns([["SNAPSHOT", "CREATED", "HOLDS"], *rows])


@snapshot.command()
@timeout_option()
@quiet
@name_argument
@snapshot_argument
def restore(name: str, snapshot: str, quiet: bool, timeout: float) -> None:
    """Restore the machine's state, running if it ran then. The present state is lost."""
    from machine import capabilities

    def work(name: str, shown: Progress) -> str:
        state = capabilities.restore(name, snapshot, shown, timeout=timeout)
        return f'"{name}" is as it was at the snapshot "{snapshot}": {state}.'

    on_each([targets.one(name)], quiet, work)


@snapshot.command()
@quiet
@name_argument
@snapshot_argument
def rm(name: str, snapshot: str, quiet: bool) -> None:
    """Remove a snapshot. The machine stays as it is."""
    from machine import capabilities

    def work(name: str, shown: Progress) -> str:
        capabilities.forget(name, snapshot)
        return f'The snapshot "{snapshot}" of "{name}" was removed.'

    on_each([targets.one(name)], quiet, work)

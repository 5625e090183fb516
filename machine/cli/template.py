"""machine template ls, rm, prune: the booted machines that new ones are cloned from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import click

from machine import paths, registry
from machine.cli.tables import print_columns
from machine.driver import Driver, KeptTemplate
from machine.errors import MachineError, Usage


@click.group()
def template() -> None:
    """Manage the booted machines that new ones are cloned from. `create` makes them when it needs them."""


@template.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print [{"key", "created", "size_mib", "what", "stale", "failed"}].'
)
def list_(quiet: bool, as_json: bool) -> None:
    """List the templates. A stale one is used no more: machine template prune.

    One that couldn't be made or loaded is tried again after a day, and when something has changed that it is made of;
    at once after: machine template rm.
    """
    from machine.resources import human

    found = [kept for _, kept in _all()]
    if as_json:
        print(json.dumps([dataclasses.asdict(kept) for kept in found], indent=4))
    elif quiet:
        for kept in found:
            print(kept.key)
    else:
        rows = [[kept.key, kept.created, human(kept.size_mib), kept.what, _why(kept)] for kept in found]
        print_columns([["TEMPLATE", "CREATED", "SIZE", "OF", "STALE"], *rows])


@template.command()
@click.argument("templates", metavar="TEMPLATE...", nargs=-1, required=True)
def rm(templates: tuple[str, ...]) -> None:
    """Remove templates, and forget that they failed. Machines that were cloned from them stay as they are."""
    kept = {one.key: driver for driver, one in _all()}
    for key in templates:
        if key not in kept:
            raise Usage(f'there is no template "{key}"', hint="machine template ls")
    for key in templates:
        kept[key].remove_template(paths.store(), key)
        print(f"Removed the template {key}")


@template.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also remove those that new machines are cloned from.")
def prune(everything: bool) -> None:
    """Remove the templates that no new machine is cloned from any more."""
    for driver, one in _all():
        if everything or _why(one):
            driver.remove_template(paths.store(), one.key)
            print(f"Removed the template {one.key}{f': {_why(one)}' if _why(one) else ''}")


def _why(kept: KeptTemplate) -> str:
    """Why no new machine is cloned from it."""
    return f"failed: {kept.failed}" if kept.failed else kept.stale


def _all() -> Iterator[tuple[type[Driver], KeptTemplate]]:
    for name in registry.names():
        try:
            driver = registry.load(name)
        except MachineError:
            continue  # another driver's templates can be managed without it
        for kept in driver.templates(paths.store()):
            yield driver, kept

"""Which options of `machine create` machine.yaml has: the schema's keys come from the options themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from machine import registry
from machine.cli import driver_options
from machine.cli.options import Number, Size
from machine.project import schema
from machine.project.schema import Key, Kind

# The others, and why they are no keys of a machine.
LEFT_OUT = {
    "offline": "it says how to make a machine, not what it is: machine up --offline",
    "context": "it is about this computer's docker client: machine docker-context",
    "timeout": "it says how long to wait: machine up --timeout",
    "quiet": "it is about what is printed",
    "json": "it is about what is printed",
    "help-all": "it prints a help",
    "help": "it prints a help",
}


def current() -> dict[str, Any]:
    """The schema with all drivers that are installed: the one of the package, unless other wheels bring drivers."""
    packaged = schema.packaged()
    return packaged if set(names := registry.names()) <= set(packaged["x-drivers"]) else built(names)


def built(drivers: Sequence[str]) -> dict[str, Any]:
    """The schema with the options of these drivers."""
    from machine.cli.create import create

    ours = [option for option in click.Command.get_params(create, click.Context(create)) if _is_key(option)]
    keys = [_key(option) for option in ours if isinstance(option, click.Option)]
    for driver in sorted(drivers):
        keys += [_key(option, driver) for option in driver_options.of(driver)]
    return schema.build(keys, drivers)


def name_of(option: click.Parameter) -> str:
    """The longest spelling, without dashes: --memory, and not -m."""
    return max(option.opts, key=len).lstrip("-")


def _is_key(option: click.Parameter) -> bool:
    return isinstance(option, click.Option) and name_of(option) not in LEFT_OUT


def _key(option: click.Option, driver: str = "") -> Key:
    shown = getattr(option, "shown", "")
    default = option.default if isinstance(option.default, str | int) and not option.is_flag else ""
    return Key(
        name=name_of(option),
        kind=_kind(option),
        help=(option.help or "").replace(" May be repeated.", ""),
        metavar=option.metavar or "",
        default=str(shown or default),
        driver=driver,
    )


def _kind(option: click.Option) -> Kind:
    if option.is_flag:
        return Kind.SWITCH
    if option.multiple:
        return Kind.LIST
    if isinstance(option.type, Size):
        return Kind.SIZE
    return Kind.NUMBER if isinstance(option.type, Number) else Kind.TEXT

"""The drivers' own options of `machine create`, and what becomes of those that were typed."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import click

from machine import registry
from machine.cli.options import Number
from machine.cli.sections import Option
from machine.driver import Driver
from machine.errors import MachineError
from machine.spec import Option as Value


def default_driver(platform: str = sys.platform) -> str:
    """qemu; on macOS virtualbox where it is installed, on Windows always: the other drivers don't work there."""
    if platform not in {"win32", "darwin"} or "virtualbox" not in registry.names():
        return "qemu"
    return "virtualbox" if platform == "win32" or registry.load("virtualbox").is_available() else "qemu"


def every() -> list[click.Option]:
    """The options of all drivers that can be loaded, the default one's first."""
    return [option for name in _by_use() for option in of(name)]


def available() -> list[str]:
    """The drivers that have options and can work on this host, the default one first."""
    return [name for name in _by_use() if of(name) and registry.load(name).is_available()]


def elsewhere() -> list[str]:
    """The drivers that have options and can't work on this host."""
    shown = available()
    return [name for name in _by_use() if name not in shown and of(name)]


def of(name: str) -> list[click.Option]:
    try:
        driver = registry.load(name)
    except MachineError:
        return []  # a broken driver must not break the others; --driver NAME says what is wrong with it
    return [_option(driver, field) for field in dataclasses.fields(driver.Options)]


def heading(name: str) -> str:
    return f"Driver {name}{', the default here' if name == default_driver() else ''}"


def own(driver: str, typed: dict[str, Any]) -> dict[str, Value]:
    """Values of the driver's Options, of all that was typed."""
    found = {field.name: value for field, value in _typed(driver, typed) if "sets" not in field.metadata}
    return {name: value for name, value in found.items() if value != ()}


def common(driver: str, typed: dict[str, Any]) -> dict[str, Any]:
    """Fields of Machine that a driver's own option stands for: --virtualbox-memory is --memory."""
    return {
        field.metadata["sets"]: field.metadata.get("convert", int)(value)
        for field, value in _typed(driver, typed)
        if "sets" in field.metadata
    }


def _by_use() -> list[str]:
    first = default_driver()
    return sorted(registry.names(), key=lambda name: (name != first, name))


def _typed(driver: str, typed: dict[str, Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    for field in dataclasses.fields(registry.load(driver).Options):
        if (value := typed.get(f"{driver}_{field.name}")) is not None:
            yield field, value


def _option(driver: type[Driver], field: dataclasses.Field[Any]) -> click.Option:
    # A default of None tells an option that was typed from one that wasn't; the driver's dataclass has the real one.
    data = field.metadata
    flag = data.get("flag", f"--{driver.name}-{field.name.replace('_', '-')}")
    more: dict[str, Any] = {"help": data.get("help", ""), "envvar": data.get("envvar"), "section": heading(driver.name)}
    if isinstance(field.default, bool):
        more["is_flag"] = True
    else:
        more["type"] = Number() if isinstance(field.default, int) else str
        more["metavar"] = data.get("metavar", "NUMBER" if isinstance(field.default, int) else "VALUE")
        more["multiple"] = isinstance(field.default, tuple)
        more["shown"] = str(field.default) if isinstance(field.default, str | int) and field.default else ""
    return Option([flag, f"{driver.name}_{field.name}"], default=None, **more)

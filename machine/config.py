"""~/.machine/config.toml: the user's defaults for the options of `machine create`.

    driver = "qemu"
    memory = "4G"
    engine-registry-mirror = ["http://127.0.0.1:5000"]

A key is an option without the dashes. An environment variable MACHINE_<KEY> wins over the file, an option over both.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from machine import files, paths
from machine.errors import Usage
from machine.reasons import reason


class Kind(StrEnum):
    """The kind of an option's value, as errors name it."""

    VALUE = 'a text or a number: "4G"'
    SWITCH = "true or false"
    LIST = 'a list of texts: ["a", "b"]'


def defaults(known: Mapping[str, Kind]) -> dict[str, Any]:
    """The file's values by parameter name (dashes as underscores).

    Raises Usage for an unknown option or an invalid value, and OSError.
    """
    path = paths.store() / "config.toml"
    if not paths.is_there(path):
        return {}
    import tomllib  # 10 ms, and few have such a file

    try:
        data = tomllib.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:  # not TOML, or not even UTF-8
        raise Usage(f"{path}: {reason(error)}", hint="correct the file, or remove it") from error
    values = {key.replace("-", "_"): value for key, value in data.items()}
    if unknown := sorted(values.keys() - set(known)):
        raise Usage(f"{path}: there is no option --{unknown[0].replace('_', '-')}", hint="machine create --help")
    for key, value in values.items():
        if not _fits(known[key], value):
            option = key.replace("_", "-")
            raise Usage(f"{path}: {option} = {value!r}: it must be {known[key]}", hint=f"correct the line of {option}")
    return values


def _fits(kind: Kind, value: object) -> bool:
    if kind is Kind.SWITCH:
        return isinstance(value, bool)
    if kind is Kind.LIST:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    # No path or word of a command can have a zero byte.
    return isinstance(value, str | int | float) and not isinstance(value, bool) and "\0" not in str(value)

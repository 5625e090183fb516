"""~/.machine/config.toml: the user's defaults for the options of `machine create`.

    driver = "qemu"
    memory = "4G"
    engine-registry-mirror = ["http://127.0.0.1:5000"]
    mount-hide = ["~/.aws"]
    images-url = "https://images.example.org/machineos"

A key is an option without the dashes. An environment variable MACHINE_<KEY> wins over the file, an option over both.
Two are no options: mount-hide lists what no machine sees of shared folders, images-url is where machineos is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from machine import files, paths
from machine.errors import Usage
from machine.reasons import reason

_HIDE, _IMAGES_URL = "mount_hide", "images_url"


class Kind(StrEnum):
    """The kind of an option's value, as errors name it."""

    VALUE = 'a text or a number: "4G"'
    SWITCH = "true or false"
    LIST = 'a list of texts: ["a", "b"]'


_NO_OPTIONS = {_HIDE: Kind.LIST, _IMAGES_URL: Kind.VALUE}


def defaults(known: Mapping[str, Kind]) -> dict[str, Any]:
    """The file's values by parameter name (dashes as underscores).

    Raises Usage for an unknown option or an invalid value, and OSError.
    """
    path = _file(paths.store())
    values = _read(path)
    known = {**known, **_NO_OPTIONS}
    if unknown := sorted(values.keys() - set(known)):
        raise Usage(f"{path}: there is no option --{unknown[0].replace('_', '-')}", hint="machine create --help")
    for key, value in values.items():
        _check(path, key, known[key], value)
    return {key: value for key, value in values.items() if key not in _NO_OPTIONS}


def hidden(store: Path) -> list[Path]:
    """What no machine sees of shared folders, as the user lists it. Raises Usage for an invalid file, and OSError."""
    path = _file(store)
    listed = _read(path).get(_HIDE, [])
    _check(path, _HIDE, Kind.LIST, listed)
    found = [paths.expanded(text) for text in listed]
    if relative := next((one for one in found if not one.is_absolute()), None):
        raise Usage(f'{path}: mount-hide has "{relative}", which is not an absolute path', hint="write ~/DIR or /DIR")
    return found


def images_url(store: Path) -> str:
    """The folder behind a web server that has machineos, "" for the one of the release. Raises Usage, and OSError."""
    path = _file(store)
    value = _read(path).get(_IMAGES_URL, "")
    _check(path, _IMAGES_URL, Kind.VALUE, value)
    return str(value)


def _file(store: Path) -> Path:
    return store / "config.toml"


def _read(path: Path) -> dict[str, Any]:
    if not paths.is_there(path):
        return {}
    import tomllib  # 10 ms, and few have such a file

    try:
        data = tomllib.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:  # not TOML, or not even UTF-8
        raise Usage(f"{path}: {reason(error)}", hint="mend the file, or remove it") from error
    return {key.replace("-", "_"): value for key, value in data.items()}


def _check(path: Path, key: str, kind: Kind, value: object) -> None:
    if not _fits(kind, value):
        option = key.replace("_", "-")
        raise Usage(f"{path}: {option} = {value!r}: it must be {kind}", hint=f"correct the line of {option}")


def _fits(kind: Kind, value: object) -> bool:
    if kind is Kind.SWITCH:
        return isinstance(value, bool)
    if kind is Kind.LIST:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    # No path or word of a command can have a zero byte.
    return isinstance(value, str | int | float) and not isinstance(value, bool) and "\0" not in str(value)

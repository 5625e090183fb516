"""~/.machine/config.toml: the user's defaults for the options of `machine create`.

    driver = "qemu"
    memory = "4G"
    engine-registry-mirror = ["http://127.0.0.1:5000"]

A key is an option without its dashes. An environment variable MACHINE_<KEY> wins over the file, a flag over both.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from machine import paths
from machine.errors import Usage


def defaults(known: Collection[str]) -> dict[str, Any]:
    """The file's values by parameter name (dashes as underscores). Raises Usage for what it doesn't know."""
    path = paths.store() / "config.toml"
    if not path.exists():
        return {}
    import tomllib  # 10 ms, and few have such a file

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not TOML, or not even UTF-8
        raise Usage(f"{path}: {error}", hint="mend the file, or remove it") from error
    values = {key.replace("-", "_"): value for key, value in data.items()}
    if unknown := sorted(values.keys() - set(known)):
        raise Usage(f"{path}: there is no option --{unknown[0].replace('_', '-')}", hint="machine create --help")
    return values

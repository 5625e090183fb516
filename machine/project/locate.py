"""Where a project's file is. Apart from what reads it: `env` and `ls` only ask which machines came from it."""

from __future__ import annotations

from pathlib import Path

from machine.errors import CheckFailed

FILE = "machine.yaml"


def find(given: Path | None) -> Path:
    """The file: the given one, or machine.yaml here or in the nearest folder above. Raises CheckFailed."""
    if given is not None:
        if not given.is_file():
            raise CheckFailed(f"there is no file {given}", hint="machine init")
        return given.absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    raise CheckFailed(f"there is no {FILE} in {here}, nor in a folder above", hint="machine init")

"""Which machines of the store belong to a project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from machine import paths, store
from machine.errors import MachineError
from machine.project import record
from machine.project.record import Record
from machine.spec import Machine


def of(name: str, file: Path) -> list[Machine]:
    """Those of the project with this name and file, in natural order. Machines that can't be read aren't among them."""
    return [machine for machine, known in _all() if belongs(machine, known, name, file)]


def of_file(file: Path) -> list[Machine]:
    """The same by the file alone, which isn't read: `env` and `ls` are quick."""
    return [machine for machine, known in _all() if known.file and paths.same(Path(known.file), file)]


def belongs(machine: Machine, known: Record, name: str, file: Path) -> bool:
    """A project is known by its file; by its name where that file is gone: then its folder was moved."""
    if not machine.project:
        return False
    return paths.same(Path(known.file), file) if known.is_there else machine.project == name


def _all() -> Iterator[tuple[Machine, Record]]:
    for name in store.names():
        with contextlib.suppress(MachineError):
            yield store.load(name), record.read(store.folder_of(name))

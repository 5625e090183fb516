"""Containers of this store's machines that the store doesn't know any more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from machine.driver import Machine, Orphan
from machine.paths import MachineFolder, below
from machine.run import Run

from .container import Container
from .layout import containers


def find(store: Path, known: list[Machine], run: Run) -> list[Orphan]:
    return list(_found(store, {machine.uuid for machine in known}, run))


def _found(store: Path, known: set[str], run: Run) -> Iterator[Orphan]:
    for layout in containers():
        if layout.name in known or not layout.machine.is_symlink():
            continue
        place = layout.machine.readlink()
        inside = below(place, store / "machines")
        if inside is None or len(inside.parts) != 1:
            continue
        yield Orphan(place.name, layout.name, f"the container {layout.name}", partial(end, layout.name, place, run))


def end(uuid: str, place: Path, run: Run) -> None:
    """End the container of a machine without a record, whose folder was at place."""
    gone = Machine(place.name, "lxc", uuid, mac="", image="", memory_mib=0, cpus=0, disk_mib=0)
    Container(gone, MachineFolder(place), run, lambda text: None).end()

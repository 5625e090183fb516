"""Which drivers there are: the entry points of the group `machine.drivers`, ours and other wheels'.

Each verb that asks a hypervisor looks its driver up. importlib.metadata takes 20 ms for that, as much as starting
Python, so the entry_points.txt of what is installed are read here (1 ms), by the packaging specification "Entry
points". importlib.metadata is asked only where a distribution can lie elsewhere: in a zip archive. A process reads
each once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

from machine.driver import Driver, FindsExisting
from machine.errors import MachineError, Usage
from machine.reasons import reason

GROUP = "machine.drivers"


def names() -> list[str]:
    return sorted(_installed().keys() | _elsewhere().keys())


def creatable() -> list[str]:
    """The drivers that `create` can use: without those for virtual machines of docker-machine."""
    return [name for name in names() if not _only_takes_over(name)]


def _only_takes_over(name: str) -> bool:
    try:
        return issubclass(load(name), FindsExisting)
    except MachineError:
        return False  # whoever chooses it is told why it can't be loaded


@functools.cache
def load(name: str) -> type[Driver]:
    """The driver class with that name. Raises Usage for an unknown one."""
    point = _installed().get(name) or _elsewhere().get(name)
    if point is None:
        raise Usage(
            f'there is no driver "{name}"',
            details=f"the drivers are {', '.join(creatable())}",
            hint="machine create --help",
        )
    return _load(name, point)


def _load(name: str, point: str) -> type[Driver]:
    module, _, attribute = point.partition("[")[0].partition(":")
    try:
        loaded: object = import_module(module.strip())
    except Exception as error:  # somebody else's code: it must not take our drivers down
        raise MachineError(
            f'the driver "{name}" can\'t be loaded: {reason(error)}', hint=f"reinstall the package that brings {point}"
        ) from error
    for part in attribute.strip().split("."):
        loaded = getattr(loaded, part, None)
    if not (isinstance(loaded, type) and issubclass(loaded, Driver)):
        raise MachineError(f'invalid driver "{name}": {point} isn\'t a subclass of Driver')
    return loaded


def _installed() -> dict[str, str]:
    return _installed_in(tuple(sys.path))


@functools.cache
def _installed_in(folders: tuple[str, ...]) -> dict[str, str]:
    """Driver name -> `module:class`, of the distributions that lie in folders of sys.path; the first one counts."""
    found: dict[str, str] = {}
    seen = set()
    for folder in dict.fromkeys(folders):
        for distribution, path in _distributions(folder or "."):
            if distribution not in seen:
                seen.add(distribution)
                for name, point in _points(path):
                    found.setdefault(name, point)
    return found


def _distributions(folder: str) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries]
    except OSError:
        return
    for entry in found:
        if entry.endswith((".dist-info", ".egg-info")):
            yield entry.rpartition(".")[0].partition("-")[0].lower().replace(".", "_"), f"{folder}/{entry}"


def _points(distribution: str) -> Iterator[tuple[str, str]]:
    try:
        text = Path(distribution, "entry_points.txt").read_text(encoding="utf-8")
    except OSError:
        return
    if GROUP not in text:
        return
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == GROUP and "=" in line and line[0] not in "#;":
            name, _, point = line.partition("=")
            yield name.strip(), point.strip()


def _elsewhere() -> dict[str, str]:
    """The drivers of distributions that lie in no folder of sys.path; as a rule there can be none."""
    in_archives = any(map(os.path.isfile, sys.path))
    return _elsewhere_in(tuple(sys.path)) if in_archives or any(map(_finds_distributions, sys.meta_path)) else {}


def _finds_distributions(finder: object) -> bool:
    """Whether importlib.metadata asks that finder, too: a program that was bundled into one file has such a one."""
    return finder is not PathFinder and hasattr(finder, "find_distributions")


@functools.cache
def _elsewhere_in(_: tuple[str, ...]) -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}

"""Which drivers there are: the entry points of the group `machine.drivers`, ours and other wheels'."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from machine.driver import Driver
from machine.errors import MachineError, Usage

GROUP = "machine.drivers"


def names() -> list[str]:
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> type[Driver]:
    """The driver class of that name; raises Usage when there is none."""
    for point in entry_points(group=GROUP, name=name):
        return _load(point)
    raise Usage(f'there is no driver "{name}"', hint=f"drivers here: {', '.join(names())}")


def _load(point: EntryPoint) -> type[Driver]:
    try:
        loaded = point.load()
    except ImportError as error:
        raise MachineError(
            f'the driver "{point.name}" can\'t be loaded: {error}',
            hint=f"reinstall the package that brings {point.value}",
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Driver)):
        raise MachineError(f'the driver "{point.name}" ({point.value}) isn\'t one')
    return loaded

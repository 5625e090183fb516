"""The networks of a store. `machines` is always there; others are made by `machine network create`."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass

from machine import files, paths, store
from machine.errors import CheckFailed, Usage
from machine.network import addresses, process
from machine.network.process import NetworkFolder
from machine.spec import LABEL, Machine


@dataclass(frozen=True)
class Network:
    """machines: those on it, by name; connected: those of them that its switch carries frames for now."""

    name: str
    machines: tuple[Machine, ...]
    connected: tuple[str, ...]


def folder_of(name: str) -> NetworkFolder:
    return process.folder_of(paths.store(), name)


def names() -> list[str]:
    """All networks, the one that is always there first."""
    try:
        made = sorted(path.name for path in (paths.store() / "networks").iterdir() if path.is_dir())
    except FileNotFoundError:
        made = []
    return [addresses.DEFAULT, *(name for name in made if name != addresses.DEFAULT)]


def load(name: str) -> Network:
    """Raises Usage when there is none of that name."""
    if name not in names():
        raise Usage(f'there is no network "{name}"', hint="machine network ls")
    machines = tuple(machine for machine in store.all_known() if machine.network == name)
    return Network(name, machines, tuple(folder_of(name).connected()))


def check(name: str) -> None:
    """Raise CheckFailed unless a machine can be on that network."""
    if name not in names():
        raise CheckFailed(f'there is no network "{name}"', hint=f"machine network create {name}")


def create(name: str) -> None:
    """Raises Usage for a name that can't be one, or is one."""
    if sys.platform != "linux":
        raise Usage("networks between machines need Linux", hint="machine create --network none")
    if not LABEL.fullmatch(name) or len(name) > 63 or name == addresses.NONE:
        hint = "machine network create lab"
        raise Usage(f'invalid name "{name}" of a network: use letters, digits and dashes', hint=hint)
    if name in names():
        raise Usage(f'the network "{name}" already exists', hint="machine network ls")
    files.make_folder(folder_of(name).path)


def remove(name: str) -> None:
    """Raises Usage while machines are on it, and for the network that is always there."""
    network = load(name)
    if network.machines:
        hint = f"machine rm {' '.join(machine.name for machine in network.machines)}"
        raise Usage(f'machines are on the network "{name}"', hint=hint)
    if name == addresses.DEFAULT:
        raise Usage(f'the network "{name}" is always there', hint="machine create --network none")
    # Its switch ends by itself.
    shutil.rmtree(folder_of(name).path)

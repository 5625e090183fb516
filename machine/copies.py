"""Copies of a machine's folder: a hypervisor that knows machines by UUID has one virtual machine for all of them.

It belongs to the folder that it was made from. A verb that would remove or change it for another one refuses.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from machine import paths, store
from machine.errors import MachineError
from machine.paths import MachineFolder
from machine.spec import Machine


def refuse(machine: Machine, folder: MachineFolder, path: Path) -> None:
    """Raise MachineError when path, where the virtual machine was made, lies in another folder of the same machine."""
    if machine.uuid and (other := _other(machine, folder, path)):
        raise MachineError(
            f'the virtual machine of "{machine.name}" belongs to {other.path}, and this folder is a copy of that one',
            hint=f"remove the copy alone: machine rm -f {machine.name}",
        )


def _other(machine: Machine, folder: MachineFolder, path: Path) -> MachineFolder | None:
    for place in (path, *path.parents):
        if paths.same(place, folder.path):
            return None
        with contextlib.suppress(MachineError):
            if store.read(MachineFolder(place)).uuid == machine.uuid:
                return MachineFolder(place)
    return None

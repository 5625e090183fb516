"""Change a machine's memory, processors or disk: at once if its hypervisor can, else at its next start."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from machine import resources, store
from machine.driver import Resize, State
from machine.errors import CheckFailed, MachineError, Usage
from machine.instance import changing
from machine.progress import Progress
from machine.spec import Machine

# The fields of Machine that can be set, by the words for them.
SIZES = {"memory_mib": "memory", "cpus": "processors", "disk_mib": "disk"}


def resize(
    name: str,
    progress: Progress,
    *,
    memory_mib: int | None = None,
    cpus: int | None = None,
    disk_mib: int | None = None,
) -> tuple[list[str], list[str]]:
    """Set what isn't None; returns the words for what is so now, and for what will be at the next start.

    Raises CheckFailed for a size that can't be, Usage where the driver can't change sizes.
    """
    with changing(name) as instance:
        machine, driver = instance.machine, instance.driver
        if not isinstance(driver, Resize):
            raise Usage(f"{machine.driver} machines can't be resized", hint=f"machine create {name}-2")
        target = dataclasses.replace(
            machine,
            memory_mib=memory_mib or machine.memory_mib,
            cpus=machine.cpus if cpus is None else cpus,
            disk_mib=disk_mib or machine.disk_mib,
        )
        changed = [field for field in SIZES if getattr(target, field) != getattr(machine, field)]
        for note in _checked(machine, target, instance.folder.path, local=driver.is_local()):
            progress.note(note)
        if driver.state() is State.SAVED:
            raise MachineError(
                f'the machine "{name}" is suspended: its memory can\'t change',
                hint=f"machine start {name}",
            )
        progress.phase("resizing")
        later = driver.resize(target)
        store.save(target)
    now = [word for field, word in SIZES.items() if field in changed and field not in later]
    return now, [word for field, word in SIZES.items() if field in later]


def forward_host_network(name: str, yes: bool) -> bool:
    """Have the ports of containers with --network host forwarded, or not; False when it is so already.

    The machine's helper reads it within a minute.
    """
    with changing(name) as instance:
        if instance.machine.host_network_ports == yes:
            return False
        store.save(dataclasses.replace(instance.machine, host_network_ports=yes))
    return True


def _checked(machine: Machine, target: Machine, folder: Path, *, local: bool) -> list[str]:
    if target.disk_mib < machine.disk_mib:
        raise CheckFailed(
            f"a disk can't shrink: it has {resources.human(machine.disk_mib)}",
            hint=f"give a larger size, or make another machine: machine create --disk {target.disk_mib} NAME",
        )
    if not local:
        return []
    notes = []
    if target.memory_mib != machine.memory_mib:
        notes += resources.check_memory(target.memory_mib)
    if target.cpus != machine.cpus:
        notes += resources.check_cpus(target.cpus)
    if target.disk_mib != machine.disk_mib:
        notes += resources.check_disk(target.disk_mib, folder)
    return notes

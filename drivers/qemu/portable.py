"""What moves of a machine to another host: its disk, with the disk of the template or image that it lies over."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from machine.driver import SNAPSHOT_NAME, Export, Machine
from machine.errors import ImageCorrupt
from machine.images import disks

from .argv import BASE_DISK, BASE_IMAGE, DISK
from .vm import Vm

_NOT_WHOLE = "make that file again on the machine's own host: machine export"


@contextmanager
def export(vm: Vm) -> Iterator[Export]:
    """Snapshots lie in the disk, and move with it."""
    disk = vm.folder / DISK
    backing = disks.look(disk).backing
    running = [one.name for one in disks.snapshots(disk) if one.memory]
    left = f"the memory of the snapshots {', '.join(running)} isn't moved: they come back switched off"
    yield Export({name: vm.folder / name for name in (DISK, backing) if name}, (left,) if running else ())


def accept(vm: Vm) -> Machine:
    """See driver.Portable. A saved memory is taken from nobody: QEMU trusts what it loads."""
    path = vm.folder / DISK
    disk = disks.look(path) if path.exists() else None
    if disk is None or disk.format != "qcow2" or disk.needs:
        needs = f": it needs {disk.needs}" if disk and disk.needs else ""
        raise ImageCorrupt(f"that file holds no complete {DISK}{needs}", hint=_NOT_WHOLE)
    if disk.backing:
        _check_backing(vm, disk)
    for one in disks.snapshots(path):
        if not SNAPSHOT_NAME.fullmatch(one.name):
            raise ImageCorrupt(
                f"the disk in that file holds a snapshot with the invalid name {one.name!r}", hint=_NOT_WHOLE
            )
    disks.forget_memory(path)
    # What accelerates machines is another thing on each host.
    options = {name: value for name, value in vm.machine.options.items() if name != "accelerator"}
    return dataclasses.replace(vm.machine, disk_mib=-(-disk.size >> 20), options=options)


def _check_backing(vm: Vm, disk: disks.Disk) -> None:
    """Where the format isn't written, QEMU guesses it, and may guess one that names other files."""
    if disk.backing not in {BASE_IMAGE, BASE_DISK} or disk.backing_format not in {"qcow2", "raw"}:
        raise ImageCorrupt(f"the disk in that file needs a file of this host: {disk.backing!r}", hint=_NOT_WHOLE)
    below = vm.folder / disk.backing
    if not below.exists():
        raise ImageCorrupt(f"the disk in that file needs {disk.backing}, which isn't in it", hint=_NOT_WHOLE)
    if disk.backing_format == "qcow2" and disks.check_whole(below).format != "qcow2":
        raise ImageCorrupt(f"{disk.backing} in that file has another format than {DISK} says", hint=_NOT_WHOLE)

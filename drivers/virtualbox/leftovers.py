"""Removing a virtual machine with all that VirtualBox knows of it, and nothing that is another's.

Also one that was half made, renamed, whose settings file is gone, or whose machine.json can't be read: then those
count as ours whose settings lie in the machine's folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from machine import copies, paths
from machine.driver import Machine
from machine.errors import DriverFailed
from machine.paths import MachineFolder

from . import network, settings
from .parse import Info
from .vboxmanage import LONG, VBoxFailed, VBoxManage


def remove(machine: Machine, folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    """Succeeds when there is nothing. Raises DriverFailed when another machine needs ours."""
    _remove_machines(machine, folder, vboxmanage)
    for kind, word in (("hdds", "disk"), ("dvds", "dvd")):
        _close(folder, kind, word, vboxmanage)
    network.detach(folder, vboxmanage)
    (folder / settings.DISK_FILE).unlink(missing_ok=True)  # one that VirtualBox has forgotten


def _remove_machines(machine: Machine, folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    for uuid in _ours(machine, folder, vboxmanage):
        info = vboxmanage.info(uuid)
        if info is None:
            continue
        if info.word == "inaccessible":
            # Its settings are gone: nothing can be asked of it, and nothing is left to be deleted.
            vboxmanage("unregistervm", uuid)
            continue
        copies.refuse(machine, folder, Path(info.config))
        _refuse_with_clones(info, folder, vboxmanage)
        vboxmanage.power_off(uuid, info)
        _detach_foreign(uuid, info, folder, vboxmanage)
        vboxmanage("unregistervm", uuid, "--delete", timeout=LONG)


def _ours(machine: Machine, folder: MachineFolder, vboxmanage: VBoxManage) -> list[str]:
    registered = vboxmanage.machines()
    if machine.uuid:
        return [machine.uuid] if machine.uuid in registered else []
    return [
        uuid for uuid in registered if (info := vboxmanage.info(uuid)) and is_below(info.config, [str(folder.path)])
    ]


def _refuse_with_clones(info: Info, folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    """unregistervm would fail half way, and the clone's disk would be lost with ours."""
    disks = {disk["UUID"]: disk for disk in vboxmanage.media("hdds")}
    folders = _folders(info, folder)
    for disk in disks.values():
        parent = disks.get(disk.get("Parent UUID", ""))
        if parent and is_below(parent["Location"], folders) and not is_below(disk["Location"], folders):
            raise DriverFailed(
                f"another virtual machine is a linked clone of it, with the disk {disk['Location']}",
                hint="remove the clone first: VBoxManage list vms, VBoxManage unregistervm NAME --delete",
            )


def _detach_foreign(uuid: str, info: Info, folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    """`unregistervm --delete` deletes every disk that is attached: one that somebody plugged in isn't ours."""
    for drive, path in info.media.items():
        if not is_below(path, _folders(info, folder)):
            name, port, device = drive.rsplit("-", 2)
            where = ("--storagectl", name, "--port", port, "--device", device)
            vboxmanage("storageattach", uuid, *where, "--medium", "none")


def _close(folder: MachineFolder, kind: str, word: str, vboxmanage: VBoxManage) -> None:
    """Take what is left of our media out of VirtualBox's registry; children come before their parents."""
    ours = [medium for medium in vboxmanage.media(kind) if is_below(medium["Location"], [str(folder.path)])]
    for medium in reversed(ours):
        # A CD that somebody put into another machine stays until that one lets go.
        with contextlib.suppress(VBoxFailed):
            vboxmanage("closemedium", word, medium["UUID"], *(["--delete"] if word == "disk" else []))


def _folders(info: Info, folder: MachineFolder) -> list[str]:
    return [str(folder.path), os.path.dirname(info.config)]  # noqa: PTH120  # "" stays ""


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of the folders: symbolic links are followed, and spellings don't count."""
    real = Path(os.path.realpath(path))
    return any(paths.below(real, Path(folder)) is not None for folder in folders if folder)

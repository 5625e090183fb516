"""What VirtualBox still has of machines that the store doesn't know any more.

It is asked wherever there is a VBoxManage: that takes a tenth of a second, and `doctor` has asked it for its version
anyway. Ours is a virtual machine whose settings lie in a machine's folder of this store and whose description says so;
docker-machine, which may share the store, writes none. One whose folder is gone altogether can't be asked, and then it
is enough that it lay there: all that is left of it is its name in VirtualBox's registry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from machine import paths
from machine.driver import Machine, Orphan
from machine.paths import MachineFolder
from machine.run import Run

from . import leftovers, settings
from .leftovers import is_below
from .vboxmanage import VBoxManage
from .vboxmanage import find as find_vboxmanage


def find(store: Path, known: list[Machine], run: Run) -> list[Orphan]:
    # A store whose disk isn't mounted now isn't one whose machines are gone.
    if find_vboxmanage() is None or not (store / "machines").is_dir():
        return []
    return list(_orphans(store, {machine.uuid for machine in known}, run))


def _orphans(store: Path, known: set[str], run: Run) -> Iterator[Orphan]:
    vboxmanage = VBoxManage(run, store)
    for uuid, config in vboxmanage.settings_files().items():
        if uuid in known or not is_below(config, [str(store / "machines")]):
            continue
        folder = _home(store, config)
        info = vboxmanage.info(uuid)
        what = f"the virtual machine {folder.name} ({uuid})"
        if info is None:
            continue
        if info.word == "inaccessible":
            if folder.path.exists():
                hint = f"if you don't want it back: VBoxManage unregistervm {uuid}"
                yield Orphan(folder.name, uuid, f"{what}, whose settings can't be read", hint=hint)
            else:
                yield Orphan(
                    folder.name, uuid, f"{what}, whose files no longer exist", _remover(folder, uuid, vboxmanage)
                )
        elif settings.is_marked(info.fields.get("description", ""), folder):
            if folder.config.exists():
                # A clone, which VirtualBox gives the description of its original, may lie beside that.
                hint = f"if you don't need it: VBoxManage unregistervm {uuid} --delete"
                yield Orphan(folder.name, uuid, f"{what}, beside that of the machine", hint=hint)
            else:
                yield Orphan(folder.name, uuid, what, _remover(folder, uuid, vboxmanage))


def _home(store: Path, config: str) -> MachineFolder:
    """The machine's folder that a settings file lies in, whichever way its path is spelled."""
    relative = paths.below(Path(os.path.realpath(config)), store / "machines")
    assert relative is not None
    return MachineFolder(store / "machines" / relative.parts[0])


def _remover(folder: MachineFolder, uuid: str, vboxmanage: VBoxManage) -> Callable[[], None]:
    machine = Machine(folder.name, "virtualbox", uuid, mac="", image="", memory_mib=0, cpus=0, disk_mib=0)
    return partial(leftovers.remove, machine, folder, vboxmanage)

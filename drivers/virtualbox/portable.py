"""What moves of a machine to another host: its disk as it is now, without the snapshots that it is laid over."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from machine.driver import Export, Machine, Reach
from machine.errors import DriverFailed, ImageCorrupt
from machine.images import disks
from machine.paths import MachineFolder
from machine.spec import Option

from . import settings, share
from .leftovers import is_below
from .options import Options
from .parse import Info
from .settings import DISK_FILE
from .vboxmanage import LONG, VBoxFailed, VBoxManage

PARTS = frozenset({DISK_FILE})
# A folder of the machine's, in which a disk is put together.
_SCRATCH = ".export-"


@contextmanager
def export(machine: Machine, folder: MachineFolder, vboxmanage: VBoxManage) -> Iterator[Export]:
    """After a snapshot, what is written goes to another file: then a copy is made of all that the guest sees now."""
    info = vboxmanage.existing(machine)
    current = _attached(info, machine)
    if current.samefile(folder / DISK_FILE):
        yield Export({DISK_FILE: current})
        return
    _clear(folder, vboxmanage)  # of an export that was killed
    scratch = Path(tempfile.mkdtemp(dir=folder.path, prefix=_SCRATCH))
    try:
        vboxmanage.say("merging its disk and snapshots into one file")
        vboxmanage("clonemedium", "disk", current, scratch / DISK_FILE, "--format", "VDI", timeout=LONG)
        names = ", ".join(snapshot.name for _, snapshot in vboxmanage.snapshots(info))
        left = f"the snapshots {names} aren't moved: the file holds the machine as it is now"
        yield Export({DISK_FILE: scratch / DISK_FILE}, (left,) if names else ())
    finally:
        _clear(folder, vboxmanage)


def accept(machine: Machine, folder: MachineFolder, vboxmanage: VBoxManage) -> Machine:
    """See driver.Portable. The disk gets a UUID of its own: VirtualBox takes no two with the same."""
    path = folder / DISK_FILE
    disk = disks.look(path) if path.exists() else None
    if disk is None or disk.format != "vdi" or disk.needs:
        needs = f": it needs {disk.needs}" if disk and disk.needs else ""
        hint = "make that file again on the machine's own host: machine export"
        raise ImageCorrupt(f"that file holds no complete {DISK_FILE}{needs}", hint=hint)
    vboxmanage("internalcommands", "sethduuid", path)
    return dataclasses.replace(machine, disk_mib=-(-disk.size >> 20))


def reaches(options: Options) -> list[Reach]:
    reaches = []
    if shared := share.share_of(options):
        what = f"the folder {shared.folder} of this host, to read and to write, as {shared.path}"
        reaches.append(_reach(what, no_share=True, share_folder=""))
    if options.bridged:
        reaches.append(_reach(f"a card on this host's network, through {options.bridged}", bridged=""))
    if options.wants_hostonly:
        what = f"a host-only network with this host ({options.hostonly_cidr or 'the default addresses'})"
        reaches.append(_reach(what, hostonly=False, hostonly_cidr=""))
    if options.host_dns_resolver:
        reaches.append(_reach("all names that this host can look up, a VPN's too", host_dns_resolver=False))
    if options.ui_type != "headless":
        reaches.append(_reach(f"a window on this desktop ({options.ui_type})", ui_type="headless"))
    return reaches


def _attached(info: Info, machine: Machine) -> Path:
    """The file in the machine's disk drive."""
    if path := info.media.get(f"{settings.CONTROLLER}-{settings.DISK}-0"):
        return Path(path)
    raise DriverFailed(f'the machine "{machine.name}" has no disk any more in VirtualBox', hint="machine doctor")


def _reach(what: str, **without: Option) -> Reach:
    return Reach(what, partial(_with_options, without))


def _with_options(options: dict[str, Option], machine: Machine) -> Machine:
    return dataclasses.replace(machine, options=machine.options | options)


def _clear(folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    """Remove the copies of the disk, and what VirtualBox knows of them: also of one whose file is gone."""
    for medium in vboxmanage.media("hdds"):
        if _SCRATCH in medium["Location"] and is_below(medium["Location"], [str(folder.path)]):
            with contextlib.suppress(VBoxFailed):
                vboxmanage("closemedium", "disk", medium["UUID"], "--delete")
    for scratch in folder.path.glob(f"{_SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)

"""Starts one container.

All its mounts are made in a mount namespace of its own, in which LXC then runs. They end with the container, however
it ends, and its loop devices with them: nobody has to unmount anything. The page cache of the image is shared by all.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import files
from machine.errors import DriverFailed
from machine.folders import mount_spec
from machine.run import run, which

from . import binds, disk, mounts, roots
from . import layout as layouts
from .binds import Bind
from .layout import IDS, Layout

# Seconds.
START = 60.0
# 1048576 is Docker's own limit of open files; without CAP_SYS_RESOURCE it is the host's. When the machine's memory is
# used up, the kernel should kill containers, for which runc sets 0, and not Docker: the guest can't lower this by
# itself, as it does in a virtual machine; it raises it for users' sessions.
_BEGIN = """
{ ulimit -n 1048576 || ulimit -n "$(ulimit -Hn)"; echo -500 >/proc/self/oom_score_adj; } 2>/dev/null
exec "$@"
"""


@dataclass(frozen=True)
class Plan:
    """image: the ISO with the root file system at byte offset. unpacked: where that is, or will be, as plain files.

    disk: the image of Docker's file system.

    first_id: the first of the container's ids on this host, None for those of the host. memory_mib: what may be written
    over the root. binds: folders of this host.
    """

    image: str
    offset: int
    unpacked: str
    disk: str
    first_id: int | None
    memory_mib: int
    binds: tuple[Bind, ...] = ()

    def write(self, layout: Layout) -> None:
        files.write(layout.plan, json.dumps(asdict(self)), durable=False)


def read(layout: Layout) -> Plan:
    fields = json.loads(layout.plan.read_text(encoding="utf-8"))
    return Plan(**{**fields, "binds": tuple(Bind(**bind) for bind in fields["binds"])})


def launch(layout: Layout) -> None:
    """Needs a mount namespace of its own. The container runs when this returns. Raises MachineError, OSError."""
    plan = read(layout)
    _mount_root(layout, plan)
    _mount_disk(layout, plan)
    _mount_seed(layout, plan)
    _mount_host(layout, plan)
    _start(layout)


def _mount_root(layout: Layout, plan: Plan) -> None:
    """The image, with the container's ids, and over it what is written: in memory, as in every machine."""
    for folder in (layout.image, layout.lower, layout.memory, layout.root, layout.disk, layout.host):
        folder.mkdir(mode=0o711, exist_ok=True)
    binds.mount(_root(layout, plan), layout.lower, ids=_ids(plan), read_only=True)
    size = f"mode=755,size={plan.memory_mib // 2}M"
    run(["mount", "--types", "tmpfs", "--options", size, "memory", layout.memory])
    upper, work = layout.memory / "upper", layout.memory / "work"
    for folder in (upper, work):
        folder.mkdir(mode=0o755)
        os.chown(folder, plan.first_id or 0, plan.first_id or 0)
    options = f"lowerdir={layout.lower},upperdir={upper},workdir={work}"
    run(["mount", "--types", "overlay", "--options", options, "root", layout.root])


def _root(layout: Layout, plan: Plan) -> Path:
    """The image's root file system: unpacked, where that is possible, else mounted out of the image."""
    unpacked = Path(plan.unpacked)
    if not roots.is_there(unpacked):
        options = f"ro,loop,offset={plan.offset}"
        run(["mount", "--types", "squashfs", "--options", options, plan.image, layout.image])
        roots.unpack(layout.image, unpacked, _ids(plan), run)
    return unpacked if roots.is_there(unpacked) else layout.image


def _mount_disk(layout: Layout, plan: Plan) -> None:
    disk.check(Path(plan.disk), run)
    disk.fill(Path(plan.disk), run)
    device = disk.attach(Path(plan.disk), run)
    try:
        run(["mount", "--types", "ext4", "--options", "noatime,discard,nodev", device, layout.disk])
    finally:
        disk.detach(device, run)
    target = binds.folder_in(layout.root, "/mnt/data", plan.first_id)
    binds.mount(layout.disk, target, ids=_ids(plan))


def _mount_seed(layout: Layout, plan: Plan) -> None:
    """Its files are ours, and the container's root reads them."""
    first_id = plan.first_id or 0
    ids = mounts.Ids(((os.geteuid(), first_id, 1),), ((os.getegid(), first_id, 1),))
    target = binds.folder_in(layout.root, "/mnt/seed", plan.first_id)
    binds.mount(layout.seed, target, ids=ids, read_only=True, closed=True)


def _mount_host(layout: Layout, plan: Plan) -> None:
    """The folders of this host, at a place that the container sees, also what is put there later."""
    run(["mount", "--types", "tmpfs", "--options", "mode=755,size=1M", "host", layout.host])
    mounts.set_propagation(layout.host, mounts.MS_SHARED)
    target = binds.folder_in(layout.root, mount_spec.BOUND_AT, plan.first_id)
    run(["mount", "--bind", layout.host, target])
    layout.nothing.mkdir(mode=0, exist_ok=True)
    layout.no_file.touch(mode=0)
    binds.bring(layout, plan.binds, plan.first_id)


def _ids(plan: Plan) -> mounts.Ids | None:
    return ids_from(plan.first_id)


def ids_from(first_id: int | None) -> mounts.Ids | None:
    """The ids of a container; None for those of the host."""
    if first_id is None:
        return None
    whole = ((0, first_id, IDS),)
    return mounts.Ids(whole, whole)


def _start(layout: Layout) -> None:
    # LXC asks newuidmap for ids, if it finds it, and that knows of those in /etc/subuid only: let it find none.
    # Root may use any.
    program = which("lxc-start") or "lxc-start"
    argv: list[str | Path] = [
        *("/bin/sh", "-c", _BEGIN, "sh"),
        program,
        "-P",
        layouts.CONTAINERS,
        "-n",
        layout.name,
        "-d",
        "-o",
        layout.log,
        "-l",
        "WARN",
    ]
    started = run(argv, env={"PATH": "/usr/sbin:/sbin"}, check=False, timeout=START)
    if started.code:
        text = layout.log.read_text(encoding="utf-8", errors="replace") if layout.log.exists() else started.stderr
        said = [line for line in text.splitlines() if " ERROR " in line]
        raise DriverFailed("LXC didn't start the container", details="\n".join(said[-10:] or text.splitlines()[-10:]))

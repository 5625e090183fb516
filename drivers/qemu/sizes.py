"""Memory and disk of a machine that runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from machine import wait
from machine.driver import Machine
from machine.errors import DriverFailed, WaitTimeout

from .argv import DISK, ROOM_MIB
from .qmp import Qmp
from .vm import Vm

# Seconds: a guest gives memory back as it can free it.
PATIENCE = 10.0
GROW = 120.0
LIMITS = 30.0
# virtio-mem works in blocks of this size.
BLOCK_MIB = 2


def resize(vm: Vm, wanted: Machine) -> list[str]:
    """See driver.Resize. Processors wait for the next start, and less memory than the machine started with."""
    if not vm.process.find():
        if wanted.disk_mib > vm.machine.disk_mib:
            vm.run(["qemu-img", "resize", "-q", "-f", "qcow2", vm.home / DISK, f"{wanted.disk_mib}M"])
        return []
    later = []
    with vm.monitor() as monitor:
        if wanted.memory_mib != vm.machine.memory_mib and not _give_memory(vm, monitor, wanted.memory_mib):
            later.append("memory_mib")
        if wanted.disk_mib > vm.machine.disk_mib:
            enlarge(monitor, wanted.disk_mib)
            if not _has_grown(vm):
                later.append("disk_mib")
    if wanted.cpus != vm.machine.cpus:
        later.append("cpus")
    return later


def _has_grown(vm: Vm) -> bool:
    """Have the guest fill its larger disk; False where only a boot does that: without our program, say."""
    try:
        with vm.agent() as agent:
            agent.run("/usr/sbin/machineos-grow", timeout=GROW)
    except DriverFailed:
        return False
    return True


def layout(monitor: Qmp) -> dict[str, int | bool | str]:
    """How a running QEMU is laid out, which may not be as the next will be: a state loads only into one alike.

    image: the digest of what it has booted, "" for a disk that boots by itself. An upgrade gives the next QEMU another,
    and a guest would find other files under those that it has open.
    """
    cpus = len(monitor.execute("query-cpus-fast"))
    base = monitor.execute("query-memory-size-summary")["base-memory"]
    more = _requested(monitor) if _has_room(monitor) else 0
    reporting = monitor.execute("qom-get", path="/machine/peripheral/balloon", property="free-page-reporting")
    memory = {"base_mib": base >> 20, "more_mib": more >> 20, "reporting": reporting}
    return {**memory, "cpus": cpus, "image": _image(monitor)}


def _image(monitor: Qmp) -> str:
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    return next((Path(node["file"]).parent.name for node in nodes if node.get("node-name") == "root"), "")


def _has_room(monitor: Qmp) -> bool:
    """Whether this QEMU was started so that memory can be plugged in: see argv.Host.plugs_memory."""
    return any(child["name"] == "memory" for child in monitor.execute("qom-list", path="/machine/peripheral"))


def _requested(monitor: Qmp) -> int:
    size: int = monitor.execute("qom-get", path="/machine/peripheral/memory", property="requested-size")
    return size


def plug(monitor: Qmp, more_mib: int) -> int:
    """Set how much memory the guest has beyond what it started with; returns the MiB, in whole blocks."""
    if not more_mib and not _has_room(monitor):
        return 0
    more_mib = more_mib // BLOCK_MIB * BLOCK_MIB
    monitor.execute("qom-set", path="/machine/peripheral/memory", property="requested-size", value=more_mib << 20)
    return more_mib


def enlarge(monitor: Qmp, disk_mib: int) -> None:
    monitor.execute("block_resize", **{"node-name": "data", "size": disk_mib << 20})


def _give_memory(vm: Vm, monitor: Qmp, memory_mib: int) -> bool:
    """Plug or unplug; False where that takes a restart."""
    more = memory_mib - int(layout(monitor)["base_mib"])
    if not 0 <= more <= ROOM_MIB or not _has_room(monitor):
        return False
    plugged_mib = plug(monitor, more)
    followed = _follows(monitor, plugged_mib)
    _set_limits(vm, plugged_mib)
    return followed


def _follows(monitor: Qmp, plugged_mib: int) -> bool:
    """Whether the guest takes, or gives back, memory until it has that much beyond what it started with."""

    def has_followed() -> bool:
        size = monitor.execute("qom-get", path="/machine/peripheral/memory", property="size")
        return bool(size >> 20 == plugged_mib)

    try:
        return wait.until(has_followed, timeout=PATIENCE, what="the guest to follow")
    except WaitTimeout:
        return False  # it needs its memory; the rest follows as it is freed, or at the next start


def _set_limits(vm: Vm, more_mib: int) -> None:
    """Have the guest set what it derived from its memory at boot; one without our program keeps what it has."""
    with contextlib.suppress(DriverFailed), vm.agent() as agent:
        agent.run("/usr/lib/machineos/limits", str(more_mib), timeout=LIMITS)

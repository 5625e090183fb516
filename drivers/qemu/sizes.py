"""Memory and disk of a machine that runs."""

from __future__ import annotations

import contextlib

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
            vm.run(["qemu-img", "resize", "-q", "-f", "qcow2", vm.folder / DISK, f"{wanted.disk_mib}M"])
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


def base_mib(monitor: Qmp) -> int:
    """The memory that a running QEMU started with."""
    return int(monitor.execute("query-memory-size-summary")["base-memory"]) >> 20


def more_mib(monitor: Qmp) -> int:
    """The memory that was plugged into a running QEMU."""
    if not _has_room(monitor):
        return 0
    return int(monitor.execute("qom-get", path="/machine/peripheral/memory", property="requested-size")) >> 20


def _has_room(monitor: Qmp) -> bool:
    """Whether this QEMU was started so that memory can be plugged in: see argv.Host.plugs_memory."""
    return any(child["name"] == "memory" for child in monitor.execute("qom-list", path="/machine/peripheral"))


def plug(monitor: Qmp, memory_mib: int) -> int:
    """Set how much memory the guest has beyond what it started with; returns the MiB, in whole blocks."""
    if not memory_mib and not _has_room(monitor):
        return 0
    memory_mib = memory_mib // BLOCK_MIB * BLOCK_MIB
    monitor.execute("qom-set", path="/machine/peripheral/memory", property="requested-size", value=memory_mib << 20)
    return memory_mib


def enlarge(monitor: Qmp, disk_mib: int) -> None:
    monitor.execute("block_resize", **{"node-name": "data", "size": disk_mib << 20})


def _give_memory(vm: Vm, monitor: Qmp, memory_mib: int) -> bool:
    """Plug or unplug; False where that takes a restart."""
    more = memory_mib - base_mib(monitor)
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
        return wait.until(has_followed, timeout=PATIENCE, what="the guest to change its memory")
    except WaitTimeout:
        return False  # it needs its memory; the rest follows as it is freed, or at the next start


def _set_limits(vm: Vm, plugged_mib: int) -> None:
    """Have the guest set what it derived from its memory at boot; one without our program keeps what it has."""
    with contextlib.suppress(DriverFailed), vm.agent() as agent:
        agent.run("/usr/lib/machineos/limits", str(plugged_mib), timeout=LIMITS)

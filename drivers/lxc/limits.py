"""Memory and processors, as control groups limit them: of version 1 or 2, as this host has mounted them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from machine.driver import Machine

GROUPS = Path("/sys/fs/cgroup")
# Microseconds: cpu.cfs_period_us.
_PERIOD = 100_000
# Seconds.
ENDING = 1.0
MEMORY = "memory.max"
CPUS = "cpu.max"
# The names of version 1.
_OLD_MEMORY = "memory.limit_in_bytes"
_OLD_PERIOD, _OLD_QUOTA = "cpu.cfs_period_us", "cpu.cfs_quota_us"


def is_unified() -> bool:
    """Whether the host has control groups of version 2 only."""
    return (GROUPS / "cgroup.controllers").exists()


def are_there() -> bool:
    """Whether the host can limit memory."""
    return is_unified() or (GROUPS / "memory").is_dir()


def of(machine: Machine) -> dict[str, str]:
    """The lines of LXC's configuration."""
    prefix = "lxc.cgroup2." if is_unified() else "lxc.cgroup."
    return {f"{prefix}{key}": value for key, value in {**memory(machine), **cpus(machine)}.items()}


def memory(machine: Machine) -> dict[str, str]:
    return {MEMORY if is_unified() else _OLD_MEMORY: str(machine.memory_mib << 20)}


def cpus(machine: Machine) -> dict[str, str]:
    """So much time of all processors, not some of them: containers share what others leave."""
    quota = machine.cpus * _PERIOD
    if is_unified():
        return {CPUS: f"{quota} {_PERIOD}"}
    return {_OLD_PERIOD: str(_PERIOD), _OLD_QUOTA: str(quota)}


def groups(name: str) -> Iterator[Path]:
    """The control groups that LXC has made for a container; it adds a number where one of an earlier run is left."""
    for pattern in (f"lxc.payload.{name}*", f"lxc.monitor.{name}*"):
        yield from GROUPS.glob(pattern)
        yield from GROUPS.glob(f"*/{pattern}")


def drop_shared() -> None:
    """Remove the control groups through which LXC's own processes end, unless one is there that doesn't."""
    deadline = time.monotonic() + ENDING
    for group in (*GROUPS.glob("lxc.pivot"), *GROUPS.glob("*/lxc.pivot")):
        while not _is_removed(group) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

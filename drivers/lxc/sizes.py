"""Memory, processors and disk of a container; all of them change while it runs."""

from __future__ import annotations

from machine.driver import Machine, State
from machine.errors import DriverFailed, ToolFailed

from . import disk, limits
from .container import Container


def resize(container: Container, wanted: Machine) -> list[str]:
    """See driver.Resize. Memory that programs use isn't taken from them: that raises DriverFailed."""
    machine = container.machine
    larger = wanted.disk_mib > machine.disk_mib
    if larger:
        disk.enlarge(container.disk, wanted.disk_mib)  # the next start fills it
    if container.state() is State.STOPPED:
        return []
    later = ["disk_mib"] if larger and not _fill(container) else []
    if wanted.memory_mib != machine.memory_mib:
        _set(container, limits.memory(wanted), "its programs use more memory than that")
    if wanted.cpus != machine.cpus:
        _set(container, limits.cpus(wanted), "the kernel refuses it")
    return later


def _set(container: Container, values: dict[str, str], why: str) -> None:
    for key, value in values.items():
        try:
            container.tool.limit(key, value)
        except ToolFailed as error:
            raise DriverFailed(f"{key} can't be {value}: {why}", details=error.details) from error


def _fill(container: Container) -> bool:
    """Have the mounted file system fill its file; False where root may not: without CAP_SYS_RESOURCE."""
    run, inside = container.run, container.inside()
    device = run([*inside, "findmnt", "--noheadings", "--output", "SOURCE", container.layout.disk]).stdout.strip()
    run(["losetup", "--set-capacity", device])
    return run([*inside, "resize2fs", device], check=False, timeout=disk.CHECK).code == 0

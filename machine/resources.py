"""Sizes, and the host's memory, processors and disk space."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from machine.errors import CheckFailed, Usage

_UNITS = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}
# Limit the digits, because a float overflows: "9" * 400 is infinite.
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(?:([mgt])(?:i?b)?)?", re.IGNORECASE)

# Of machines, by the names that Linux has for them; and what others call them.
ARCHITECTURES = ("x86_64", "aarch64")
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}

# Of a machine for which nothing was said.
DEFAULT_MEMORY, DEFAULT_CPUS, DEFAULT_DISK = "2G", 2, "20G"
SMALLEST_MEMORY_MIB = 256
SMALLEST_DISK_MIB = 512
SMALLEST_FREE_MIB = 64


def mib(text: str) -> int:
    """A size in MiB from "8096" (MiB), "8G", "1.5GiB" or "512M"; a unit is binary. Raises Usage."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size <= 0:
        raise Usage(f'invalid size "{text}": use MiB or a unit, for example 8G')
    return size


def human(size_mib: int) -> str:
    """8096 -> "7.9 GiB", 512 -> "512 MiB"."""
    if size_mib < 1024:
        return f"{size_mib} MiB"
    return f"{size_mib / 1024:.1f}".removesuffix(".0") + " GiB"


def host_memory_mib() -> tuple[int, int]:
    """The host's memory: in total, and available now."""
    import psutil  # costs 15 ms to import, and only create needs it

    memory = psutil.virtual_memory()
    return memory.total >> 20, memory.available >> 20


def architecture() -> str:
    """The host's processor: "x86_64", "aarch64"."""
    return architecture_named(platform.machine())


def architecture_named(text: str) -> str:
    """ "arm64" -> "aarch64"; a name that isn't known stays as it is."""
    name = text.lower()
    return _ALIASES.get(name, name)


def free_bytes(folder: Path) -> int:
    """The free space of the folder's disk."""
    import shutil  # 2 ms, and `ls` has no need of it

    return shutil.disk_usage(folder).free


def check_memory(memory_mib: int) -> list[str]:
    """Raise CheckFailed when the host can't have such a machine; return a warning when it needs more than is free."""
    total, available = host_memory_mib()
    if memory_mib < SMALLEST_MEMORY_MIB:
        raise CheckFailed(
            f"{memory_mib} MiB of memory are too little for Docker",
            hint=f"use {SMALLEST_MEMORY_MIB} MiB or more: --memory 2G",
        )
    if memory_mib > total:
        raise CheckFailed(
            f"the machine asks for {human(memory_mib)} of memory, but this host has {human(total)}",
            hint="use less memory: --memory 2G",
        )
    if memory_mib > available:
        return [
            f"the machine may take {human(memory_mib)} of memory, but {human(available)} are free: the host may swap"
        ]
    return []


def check_cpus(cpus: int) -> list[str]:
    """Raise CheckFailed for less than one CPU; return a warning for more than the host has."""
    import psutil

    there = psutil.cpu_count() or 1
    if cpus < 1:
        raise CheckFailed("a machine needs at least one CPU", hint="use one or more: --cpus 2")
    return [f"the machine gets {cpus} CPUs, but this host has {there}: they share them"] if cpus > there else []


def check_disk(disk_mib: int, folder: Path) -> list[str]:
    """Raise CheckFailed when not even an empty machine fits; return a warning when a full one wouldn't fit."""
    free = free_bytes(folder) >> 20
    if disk_mib < SMALLEST_DISK_MIB:
        raise CheckFailed(
            f"a disk of {human(disk_mib)} is too small for Docker",
            hint=f"use a larger disk: --disk {SMALLEST_DISK_MIB}",
        )
    if free < SMALLEST_FREE_MIB:
        raise CheckFailed(f"only {human(free)} are free in {folder}", hint="make room, or set MACHINE_STORAGE_PATH")
    if disk_mib > free:
        return [f"the disk may grow to {human(disk_mib)}, but {human(free)} are free on this host"]
    return []

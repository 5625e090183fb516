"""What can be found out before anything is made."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from machine import packages
from machine.driver import Machine
from machine.errors import CheckFailed, ToolMissing
from machine.paths import Image
from machine.run import Run, which

from . import limits
from .container import LXCFS, check_image

TOOLS = ("lxc-start", "slirp4netns", "mkfs.ext4", "losetup", "fsfreeze", "nsenter")
# The first Linux that shows the owners of a squashfs as others.
LINUX = (6, 2)
_FILE_SYSTEMS = ("squashfs", "overlay", "ext4")


def check(machine: Machine, run: Run) -> list[str]:
    """Raise CheckFailed when the container can't be made; return notes for the user."""
    if sys.platform != "linux":
        raise CheckFailed("system containers need Linux", hint="leave out --driver")
    for tool in TOOLS:
        if which(tool) is None:
            raise ToolMissing(tool, hint=packages.hint(tool))
    if os.geteuid() != 0:
        raise CheckFailed(
            "only root can make a system container: its mounts and limits are this computer's, and its store is root's",
            hint=f"sudo machine create --driver lxc {machine.name}",
        )
    if machine.image:
        check_image(Image(machine.image))
    _check_kernel(run)
    if machine.options.get("privileged"):
        return ["--lxc-privileged: whoever is root in this machine or in one of its containers can become root here"]
    if _version() < LINUX:
        raise CheckFailed(
            f"Linux {platform.release()} can't keep the ids of a container apart: that needs {LINUX[0]}.{LINUX[1]}",
            hint="use a virtual machine, or --lxc-privileged, which isolates less",
        )
    if _read("/proc/sys/user/max_user_namespaces") == "0":
        raise CheckFailed("user namespaces are off here", hint="sudo sysctl user.max_user_namespaces=65536")
    return []


def notes() -> list[str]:
    if (LXCFS / "proc/meminfo").exists():
        return []
    return [f"docker info shows this computer's memory, not the limit; lxcfs changes that: {packages.hint('lxcfs')}"]


def _check_kernel(run: Run) -> None:
    for name in _FILE_SYSTEMS:
        if not _has(name, run):
            raise CheckFailed(f"this computer's kernel has no {name}", hint="use a virtual machine: leave out --driver")
    if not Path("/dev/loop-control").exists():
        raise CheckFailed("there are no loop devices", hint="sudo modprobe loop")
    if not Path("/dev/net/tun").exists():
        raise CheckFailed("there is no /dev/net/tun", hint="sudo modprobe tun")
    if not limits.are_there():
        raise CheckFailed(
            f"no control group for memory is mounted below {limits.GROUPS}", hint="sudo apt install cgroupfs-mount"
        )


def _has(file_system: str, run: Run) -> bool:
    """Whether the kernel has it, or a module for it, which mount loads."""
    if re.search(rf"\b{file_system}$", _read("/proc/filesystems"), re.MULTILINE):
        return True
    return which("modprobe") is not None and run(["modprobe", "-qn", file_system], check=False).code == 0


def _version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""

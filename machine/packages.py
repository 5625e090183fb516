"""Which package has a tool, and the command that installs it with the package manager of this host.

Only apt-get was tried. The names for the others were written without a look into their indexes.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

from machine import resources
from machine.run import which


@dataclass(frozen=True)
class Manager:
    """install: the command before the packages; as_root: whether only root may."""

    install: tuple[str, ...]
    as_root: bool = True


MANAGERS = {
    "apt-get": Manager(("apt-get", "install", "-y")),
    "dnf": Manager(("dnf", "install", "-y")),
    "pacman": Manager(("pacman", "-S", "--noconfirm")),
    "zypper": Manager(("zypper", "--non-interactive", "install")),
    "brew": Manager(("brew", "install"), as_root=False),
    "winget": Manager(("winget", "install", "--exact", "--id"), as_root=False),
}
# Those of each platform, in the order in which they are looked for.
_OF_PLATFORM = {
    "linux": ("apt-get", "dnf", "pacman", "zypper"),
    "darwin": ("brew",),
    "win32": ("winget",),
}
_QEMU = {
    "apt-get": "qemu-system-x86 qemu-utils",
    "dnf": "qemu-system-x86 qemu-img",
    "pacman": "qemu-system-x86 qemu-img",
    "zypper": "qemu-x86 qemu-tools",
    "brew": "qemu",
}
_QEMU_ARM = _QEMU | {
    "apt-get": "qemu-system-arm qemu-utils",
    "dnf": "qemu-system-aarch64 qemu-img",
    "pacman": "qemu-system-aarch64 qemu-img",
    "zypper": "qemu-arm qemu-tools",
}
_EVERYWHERE = ("apt-get", "dnf", "pacman", "zypper")
_TOOLS = {
    "VBoxManage": {"pacman": "virtualbox", "zypper": "virtualbox", "winget": "Oracle.VirtualBox"},
    # apt has it under several names, or with a daemon that isn't wanted.
    "docker": {
        "dnf": "docker-cli",
        "pacman": "docker",
        "zypper": "docker",
        "brew": "docker",
        "winget": "Docker.DockerCLI",
    },
    "lxc-start": dict.fromkeys(_EVERYWHERE, "lxc"),
    "lxcfs": dict.fromkeys(_EVERYWHERE, "lxcfs"),
    "mkfs.ext4": dict.fromkeys(_EVERYWHERE, "e2fsprogs"),
    "mmdebstrap": {
        "apt-get": "mmdebstrap gcc debian-archive-keyring squashfs-tools xorriso mtools kmod zstd",
    },
    "qemu-user-static": dict.fromkeys(("apt-get", "dnf", "pacman"), "qemu-user-static") | {"zypper": "qemu-linux-user"},
    "slirp4netns": dict.fromkeys(_EVERYWHERE, "slirp4netns"),
    "ssh": {
        "apt-get": "openssh-client",
        "dnf": "openssh-clients",
        "pacman": "openssh",
        "zypper": "openssh-clients",
        "winget": "Microsoft.OpenSSH.Preview",
    },
    "sshfs": {"apt-get": "sshfs", "dnf": "fuse-sshfs", "pacman": "sshfs", "zypper": "sshfs"},
}


def manager(platform: str = sys.platform) -> str:
    """The package manager of this host, "" where none is known."""
    return next((name for name in _OF_PLATFORM.get(platform, ()) if which(name)), "")


def command(tool: str) -> list[str]:
    """What installs the tool here, with sudo where it needs root; [] where no package of it is known."""
    found = manager()
    packages = _packages(tool).get(found, "").split()
    if not packages:
        return []
    how = MANAGERS[found]
    needs_sudo = how.as_root and hasattr(os, "geteuid") and os.geteuid() != 0
    return [*(("sudo",) if needs_sudo else ()), *how.install, *packages]


def hint(tool: str) -> str:
    """How to get the tool, as errors say it."""
    words = command(tool)
    return shlex.join(words) if words else f"install {tool} and make sure that it is on PATH"


def packages(tool: str, manager: str) -> list[str]:
    """The packages that have the tool, by their names in that manager's index; [] where none is known."""
    return _packages(tool).get(manager, "").split()


def _packages(tool: str) -> dict[str, str]:
    """By package manager."""
    if tool.startswith("qemu-") and tool not in _TOOLS:
        emulated = tool.removeprefix("qemu-system-")
        wanted = emulated if emulated in resources.ARCHITECTURES else resources.architecture()
        return _QEMU_ARM if wanted == "aarch64" else _QEMU
    return _TOOLS.get(tool, {})

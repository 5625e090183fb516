"""The driver's own settings; the names are docker-machine's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

from machine.driver import Machine

HOSTONLY_CIDR = "192.168.59.1/24"


def _all_when_negative(count: int) -> int:
    return count if count >= 0 else os.cpu_count() or 1


@dataclass(frozen=True)
class Options:
    """memory, cpu_count and disk_size become the machine's own, as --memory, --cpus and --disk do."""

    memory: int = field(
        default=0,
        metadata={
            "help": "The same as --memory, in MiB.",
            "metavar": "MIB",
            "envvar": "VIRTUALBOX_MEMORY_SIZE",
            "sets": "memory_mib",
        },
    )
    cpu_count: int = field(
        default=0,
        metadata={
            "help": "The same as --cpus; -1 for all of the host.",
            "envvar": "VIRTUALBOX_CPU_COUNT",
            "sets": "cpus",
            "convert": _all_when_negative,
        },
    )
    disk_size: int = field(
        default=0,
        metadata={
            "help": "The same as --disk, in MiB.",
            "metavar": "MIB",
            "envvar": "VIRTUALBOX_DISK_SIZE",
            "sets": "disk_mib",
        },
    )
    nat_nictype: str = field(
        default="virtio",
        metadata={
            "help": "The network card: virtio, 82540EM, Am79C973.",
            "metavar": "NAME",
            "envvar": "VIRTUALBOX_NAT_NICTYPE",
        },
    )
    host_dns_resolver: bool = field(
        default=False,
        metadata={
            "help": "Use the host's resolver to look names up: a VPN's names work, too.",
            "envvar": "VIRTUALBOX_HOST_DNS_RESOLVER",
        },
    )
    no_dns_proxy: bool = field(
        default=False,
        metadata={
            "help": "The guest asks the host's name servers itself, not through VirtualBox.",
            "envvar": "VIRTUALBOX_NO_DNS_PROXY",
        },
    )
    hostonly: bool = field(
        default=False,
        metadata={
            "help": "A second card, on a host-only network, with a fixed address.",
            "envvar": "VIRTUALBOX_HOSTONLY",
        },
    )
    hostonly_cidr: str = field(
        default="",
        metadata={
            "help": f"The host's address there ({HOSTONLY_CIDR} if not given); implies --virtualbox-hostonly.",
            "metavar": "CIDR",
            "envvar": "VIRTUALBOX_HOSTONLY_CIDR",
        },
    )
    bridged: str = field(
        default="",
        metadata={
            "help": "A second card, bridged to this interface of the host: others of its network see the machine.",
            "metavar": "INTERFACE",
            "envvar": "VIRTUALBOX_BRIDGED",
        },
    )
    no_share: bool = field(
        default=False,
        metadata={"help": "Don't share your home folder with the machine.", "envvar": "VIRTUALBOX_NO_SHARE"},
    )
    share_folder: str = field(
        default="",
        metadata={
            "help": "Share this folder in place of your home: DIR, or DIR:PATH for another path in the machine.",
            "metavar": "DIR",
            "envvar": "VIRTUALBOX_SHARE_FOLDER",
        },
    )
    ui_type: str = field(
        default="headless",
        metadata={
            "help": "headless, separate or gui (a window with the screen).",
            "metavar": "NAME",
            "envvar": "VIRTUALBOX_UI_TYPE",
        },
    )
    firmware: str = field(
        default="", metadata={"help": "bios or efi; bios if not given, efi on ARM.", "metavar": "NAME"}
    )
    no_vtx_check: bool = field(
        default=False,
        metadata={
            "help": "Don't check for hardware virtualization and for VirtualBox's kernel driver.",
            "envvar": "VIRTUALBOX_NO_VTX_CHECK",
        },
    )

    @property
    def wants_hostonly(self) -> bool:
        return self.hostonly or bool(self.hostonly_cidr)


def options_of(machine: Machine) -> Options:
    """The machine's options; one that a newer version wrote is left out."""
    known = {one.name for one in fields(Options)}
    return Options(**{name: value for name, value in machine.options.items() if name in known})  # type: ignore[arg-type]

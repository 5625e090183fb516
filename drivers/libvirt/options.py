"""The driver's own settings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from machine.driver import Machine


@dataclass(frozen=True)
class Options:
    uri: str = field(
        default="qemu:///system",
        metadata={
            "help": "The URI of libvirtd: qemu:///system, qemu:///session, qemu+ssh://user@host/system.",
            "metavar": "URI",
            "envvar": "LIBVIRT_DEFAULT_URI",
        },
    )
    network: str = field(
        default="machine",
        metadata={
            "help": "The network. If it doesn't exist, it is made, with NAT.",
            "metavar": "NAME",
            "envvar": "LIBVIRT_NETWORK",
        },
    )
    pool: str = field(
        default="machine",
        metadata={
            "help": "The storage pool. If it doesn't exist, it is made.",
            "metavar": "NAME",
            "envvar": "LIBVIRT_POOL",
        },
    )
    user_network: str = field(
        default="auto",
        metadata={
            "help": "For qemu:///session: passt or slirp (QEMU's own); auto uses passt if libvirt has it.",
            "metavar": "NAME",
            "envvar": "LIBVIRT_USER_NETWORK",
        },
    )
    domain_type: str = field(
        default="auto",
        metadata={
            "help": "kvm or qemu (emulation); auto tries which works.",
            "metavar": "NAME",
            "envvar": "LIBVIRT_TYPE",
        },
    )


def options_of(machine: Machine) -> Options:
    """The machine's options; one that is empty has its default, and one that a newer version wrote is left out."""
    values = {option.name: machine.options.get(option.name) for option in fields(Options)}
    return Options(**{name: str(value) for name, value in values.items() if value})

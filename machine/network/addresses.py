"""The addresses of machines on their network, which follow from those on the host: 127.77.x.y is 10.77.x.y there.

So no address has to be kept, or given out by a server. All machines of a store have the same x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine.spec import Address, Machine

if TYPE_CHECKING:
    from machine.guest.seed import Lan

# What create does when nothing was said; and the word for a machine that is on no network.
DEFAULT = "machines"
NONE = "none"
# In each machine's folder: its hypervisor listens there for the switch.
SOCKET = "lan.sock"
# The guest's name for the card: its second.
CARD = "eth1"
# The name below which machines have theirs.
DOMAIN = "machine.internal"
# Bytes. A frame costs the switch the same whatever its size, and a stream of QEMU carries up to 68 KiB
# (NET_BUFSIZE). Each card of a network must have the same.
MTU = 32000
PREFIX = 24
_HOST = "127.77."
_NETWORK = "10.77."


def of(address: Address | None) -> str:
    """The machine's address on a network, "" where the host gave it none of its own (macOS)."""
    if not address or not address.host.startswith(_HOST):
        return ""
    return _NETWORK + address.host.removeprefix(_HOST)


def server(address: str) -> str:
    """Where the switch answers for names, given the address of one of the machines: the first of their block."""
    return address.rpartition(".")[0] + ".1"


def mac(machine: Machine) -> str:
    """The address of its card on the network: that of its first card with another manufacturer's part."""
    return f"52:54:4d:{machine.mac[9:]}"


def card(name: str, machine: Machine) -> Lan:
    """How the guest sets up that card; one without an address stays down."""
    from machine.guest.seed import Lan

    address = of(machine.address) if machine.network else ""
    if not address:
        return Lan(name)
    return Lan(name, mac(machine), f"{address}/{PREFIX}", MTU, server(address))

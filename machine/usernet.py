"""The forwards of QEMU's user-mode network (slirp), by commands of its human monitor."""

from __future__ import annotations

import re
from collections.abc import Callable

from machine.docker import ports
from machine.docker.ports import Port
from machine.spec import Address

# What slirp's DHCP server gives to the first guest, and where forwards lead that name no address.
GUEST = "10.0.2.15"
# A line of `info usernet`: protocol and state, descriptor, and the address and port on the host.
_FORWARD = re.compile(r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s", re.MULTILINE)


class Slirp:
    """monitor: gives QEMU a line and returns what it printed; raises DriverFailed. network: the id of the -netdev."""

    guest = GUEST
    protocols = frozenset({"tcp", "udp"})

    def __init__(self, monitor: Callable[[str], str], network: str, address: Address) -> None:
        self.monitor = monitor
        self.network = network
        self.address = address

    def current(self) -> set[Port]:
        found = _FORWARD.findall(self.monitor("info usernet"))
        here = {(protocol.lower(), int(port)) for protocol, host, port in found if host == self.address.host}
        return here - ports.own(self.address).keys()

    def add(self, protocol: str, port: int) -> str:
        rule = f"{protocol}:{self.address.host}:{port}-:{port}"
        if not (answer := self.monitor(f"hostfwd_add {self.network} {rule}")):
            return ""
        # QEMU doesn't say why; and whoever runs it may open less than this process.
        return ports.why_not(protocol, self.address.host, port) or f"QEMU says: {' '.join(answer.split())}"

    def drop(self, protocol: str, port: int) -> None:
        self.monitor(f"hostfwd_remove {self.network} {protocol}:{self.address.host}:{port}")

"""The helper process of a running machine: what `docker.forwarding` needs of VirtualBox, whose NAT forwards by rules.

A connection that breaks is what tells that a machine has ended, on every system; VirtualBox is asked only then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from machine import store
from machine.docker import ports
from machine.docker.ports import Port
from machine.driver import State
from machine.helper import alone
from machine.paths import MachineFolder
from machine.run import run
from machine.spec import Address

from .parse import Forward
from .vboxmanage import VBoxManage

MODULE = "machine.drivers.virtualbox"
# What the NAT's DHCP server gives to the guest, and where rules lead that name no address.
GUEST = "10.0.2.15"
# Without it a helper of version 0.1 ends.
OLD_PIDFILE = "ports.pid"
_ALIVE = {State.RUNNING, State.PAUSED, State.STARTING}
_RULE = re.compile(r"(tcp|udp)-(\d+)")


def is_published(rule: Forward) -> bool:
    return _RULE.fullmatch(rule.name) is not None


class Rules:
    """The rules for published ports of one running machine."""

    guest = GUEST
    protocols = frozenset({"tcp", "udp"})

    def __init__(self, vboxmanage: VBoxManage, uuid: str, address: Address) -> None:
        self.vboxmanage = vboxmanage
        self.uuid = uuid
        self.address = address

    def current(self) -> set[Port]:
        """What stands in the machine's settings counts: a snapshot may have brought rules back."""
        info = self.vboxmanage.info(self.uuid)
        return {(rule.protocol, rule.port) for rule in info.forwards if is_published(rule)} if info else set()

    def add(self, protocol: str, port: int) -> str:
        host = self.address.host
        # VirtualBox takes a rule for a port that can't be opened, and says nothing.
        if why := ports.why_not(protocol, host, port):
            return why
        rule = Forward(f"{protocol}-{port}", protocol, host, port, port)
        self.vboxmanage("controlvm", self.uuid, "natpf1", str(rule))
        return ""

    def drop(self, protocol: str, port: int) -> None:
        self.vboxmanage("controlvm", self.uuid, "natpf1", "delete", f"{protocol}-{port}")


class Hypervisor:
    def __init__(self, vboxmanage: VBoxManage, uuid: str) -> None:
        self.vboxmanage = vboxmanage
        self.uuid = uuid

    def lives(self) -> bool:
        info = self.vboxmanage.info(self.uuid)
        return info is not None and info.state in _ALIVE

    @contextlib.contextmanager
    def forwards(self, address: Address) -> Iterator[Rules]:
        yield Rules(self.vboxmanage, self.uuid, address)


def main(path: str) -> None:
    from machine.docker.forwarding import Forwarding  # only the helper needs it, and `ls` imports this module

    folder = MachineFolder(Path(path))
    with alone(folder) as held:
        if held:
            with contextlib.suppress(OSError):
                (folder / OLD_PIDFILE).unlink()
            Forwarding(folder, Hypervisor(VBoxManage(run, folder.store), store.read(folder).uuid)).run()

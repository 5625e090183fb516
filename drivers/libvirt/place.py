"""Where a machine lives: a libvirtd, and the network, storage pool and domain there that are the machine's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from machine import files, locks
from machine.driver import Address, Machine
from machine.errors import DriverFailed
from machine.paths import MachineFolder
from machine.run import Run

from . import domains, hypervisor
from .connection import Connection, Uri
from .network import Network
from .options import Options, options_of
from .volumes import Pool

if TYPE_CHECKING:
    import libvirt

DRIVER = "libvirt"
# In the machine's folder: the address that is reserved for it on a network of libvirt's.
ADDRESS = "address"
# In the store.
LOCK = "libvirt.lock"
# Seconds for another command that uploads an image to another host.
PATIENCE = 900.0


@dataclass(frozen=True)
class Place:
    """Everything that the driver's parts need to know of a machine.

    run: starts programs. connection: to the libvirtd of the machine's options; see connection_of.
    """

    machine: Machine
    folder: MachineFolder
    run: Run
    connection: Connection

    @cached_property
    def options(self) -> Options:
        return options_of(self.machine)

    @property
    def uri(self) -> Uri:
        return self.connection.uri

    @cached_property
    def network(self) -> Network:
        return Network(self.connection, self.options.network)

    @cached_property
    def pool(self) -> Pool:
        return Pool(self.connection, self.options.pool)

    @property
    def on_loopback(self) -> bool:
        """Whether the machine is reached at an address of this host's loopback, not on a network of libvirt's."""
        return self.uri.is_session or self.uri.over_ssh

    @property
    def needs_helper(self) -> bool:
        return self.on_loopback or self.uri.is_remote or bool(self.machine.mounts)

    def address(self) -> Address:
        """Where the machine is reached. Raises DriverFailed while that isn't known."""
        return self.machine.address or Address(self.reserved())

    def reserve(self) -> None:
        """Have the network keep an address for the machine; nothing in a session, which has no network of libvirt's."""
        if not self.uri.is_session:
            files.write(self.folder / ADDRESS, self.network.reserve(self.machine.mac) + "\n")

    def reserved(self) -> str:
        """The address that the network keeps for the machine. Raises DriverFailed when it keeps none yet."""
        try:
            return (self.folder / ADDRESS).read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise DriverFailed(f'the machine "{self.machine.name}" has no address yet') from error

    def chosen(self) -> hypervisor.Choice:
        """How the machine's domain runs there. Raises CheckFailed."""
        asked = self.options.domain_type
        return hypervisor.choose(asked, self.connection, self.folder, self.run, self.machine.architecture)

    def find(self) -> libvirt.virDomain | None:
        """The machine's domain, None when there is none."""
        return self.connection.domain(self.machine.uuid)

    def domain(self) -> libvirt.virDomain:
        """The machine's domain. Raises DriverFailed when there is none."""
        if (domain := self.find()) is None:
            name = self.machine.name
            raise DriverFailed(
                f'the domain of the machine "{name}" is no longer defined on {self.uri}',
                hint=f"machine rm {name}",
            )
        return domain

    def own_domain(self) -> libvirt.virDomain:
        """For a verb that changes the domain. Raises MachineError when that is another folder's."""
        domain = self.domain()
        domains.refuse_copy(domain, self.machine, self.folder)
        return domain

    def volume(self, what: str) -> str:
        """The name of one of the machine's own volumes: "disk.qcow2", "seed.iso", "console.log"."""
        return f"machine-{self.machine.uuid}-{what}"

    def alone(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Held while network, pool and images are made, which the machines of a store share. say: told of a wait."""
        what = "another command to finish with libvirt's network and images"
        return locks.held(self.folder.store / LOCK, what=what, timeout=PATIENCE, say=say)

    def make_ready(self) -> None:
        """Start what the domain lies on: after a reboot of the host it may not have been started by itself."""
        self.pool.ready()
        if not self.uri.is_session:
            self.network.ready()


def connection_of(machine: Machine) -> Connection:
    """A new connection, not opened yet, to the libvirtd of the machine's options."""
    return Connection(Uri(options_of(machine).uri))

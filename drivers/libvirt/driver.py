"""The driver: the contract with the core. What is done, and how, stands in the modules beside it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine import files
from machine.driver import Address, Driver, Machine, Orphan, Snapshot, State
from machine.errors import DriverFailed, MachineError

from . import hypervisor
from .connection import Connection, explained
from .options import Options
from .place import DRIVER, Place, connection_of

if TYPE_CHECKING:
    from machine.guest.seed import Mount
    from machine.run import Run

    from .events import Events

# Seconds for Docker to say what it publishes, when `status` asks.
DOCKER_TIMEOUT = 5.0


class Libvirt(Driver):
    name: ClassVar[str] = DRIVER
    shares: ClassVar[bool] = True
    emulates: ClassVar[bool] = True
    Options: ClassVar[type] = Options
    _events: Events | None = None
    _pressed = False

    @classmethod
    def is_available(cls) -> bool:
        return sys.platform != "win32" and find_spec("libvirt") is not None

    @functools.cached_property
    def connection(self) -> Connection:
        return connection_of(self.machine)

    @property
    def place(self) -> Place:
        """Made for each call, because the core gives the machine its address while it is created."""
        return Place(self.machine, self.folder, self.run, self.connection)

    def on_loopback(self) -> bool:
        return self.place.on_loopback

    def lowest_port(self) -> int:
        """A libvirtd of root's runs QEMU as another user (qemu.conf), in a session, too."""
        from machine.docker.ports import first_unprivileged

        return first_unprivileged() if self.place.uri.is_session and os.geteuid() == 0 else 0

    def is_local(self) -> bool:
        return not self.place.uri.is_remote

    def host_architecture(self) -> str:
        with explained(f"can't read the host's architecture from {self.place.uri}"):
            return str(self.place.connection.raw.getInfo()[0])

    def check(self) -> list[str]:
        from . import checks

        return checks.check(self.place)

    def create(self) -> None:
        from . import definition

        if self.place.find() is not None:
            return
        with self.place.alone(self.say):
            self.place.reserve()
            definition.define(self.place, self.advance)

    def start(self) -> bool:
        from . import power

        return power.start(self.place, self.say, self.advance)

    def stop(self) -> None:
        from . import power

        domain, state = self.place.own_domain(), self.state()
        if state is State.SAVED:
            name = self.machine.name
            raise DriverFailed(
                f'the machine "{name}" is suspended',
                hint=f"resume it: machine resume {name}; or discard its memory: machine kill {name}",
            )
        power.press_button(domain, state, again=self._pressed)
        self._pressed = True

    def kill(self) -> None:
        from . import power

        power.kill(self.place.own_domain())

    def remove(self) -> None:
        from . import removal

        removal.remove(self.place)

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        from . import orphans

        return orphans.find(store, known, run)

    def state(self) -> State:
        from . import power

        domain = self.place.domain()
        state = hypervisor.state(domain)
        if state is State.RUNNING:
            # Of a guest that libvirt let go on by itself (autostart), and whose state it couldn't remove then.
            hypervisor.drop_used_state(domain)
            power.ensure_helper(self.place)
        return state

    def pause(self, seconds: float) -> None:
        from .events import Events

        if self._events is None:
            try:
                self._events = Events(str(self.place.uri), self.machine.uuid)
            except DriverFailed:
                super().pause(seconds)
                return
        self._events.wait(seconds)

    def address(self) -> Address:
        return self.place.address()

    def shares_home(self) -> bool:
        """What root of the other computer reads there is for the user to decide."""
        return self.is_local()

    @property
    def relays_folders(self) -> bool:
        """QEMU can't start a server of folders: libvirt has it run under seccomp, with spawn=deny."""
        return True

    def mounts(self) -> tuple[Mount, ...]:
        if not self.machine.mounts:
            return ()
        from machine.folders import mount_spec

        return mount_spec.mounts(self.machine.mounts, relayed=True)

    def unmounted(self, timeout: float = 0.0) -> dict[str, str]:
        from machine.folders import over_ssh

        targets = [folder.target for folder in self.folders()]
        return over_ssh.unmounted(self.folder, targets, timeout) if targets else {}

    def warnings(self) -> list[str]:
        from machine.docker.ports import warnings

        of_ports = [] if self.place.on_loopback else self._only_inside()
        return super().warnings() + warnings(self.folder) + of_ports + self._warnings_of_network()

    def _only_inside(self) -> list[str]:
        """A machine with an address of its own on a network has no helper that could forward these."""
        from machine.docker import api, ports

        with contextlib.suppress(MachineError):
            containers = api.Client(self.machine, self.folder, self.address(), DOCKER_TIMEOUT).containers()
            return ports.only_inside(ports.published(containers))
        return []

    def _warnings_of_network(self) -> list[str]:
        if self.place.uri.is_session:
            return []
        lease, reserved = self.place.network.lease(self.machine.mac), self.place.reserved()
        if lease and lease != reserved:
            return [f"the machine has taken the address {lease}, though {reserved} is reserved for it"]
        return []

    def diagnosis(self) -> str:
        try:
            lines = [f"libvirt says: {hypervisor.reason(self.place.domain())}"]
            if not self.place.uri.is_session:
                network = self.place.network
                lines.append(f"lease on the network {network.name}: {network.lease(self.machine.mac) or 'none'}")
        except MachineError as error:
            return f"libvirt says: {error.message}"
        return "\n".join(lines)

    # Suspend

    def suspend(self) -> None:
        with explained(f'the machine "{self.machine.name}" can\'t be suspended'):
            self.place.own_domain().managedSave()

    # Snapshots

    def snapshot(self, name: str) -> None:
        from . import snapshots

        snapshots.take(self.place.own_domain(), name)

    def snapshots(self) -> list[Snapshot]:
        from . import snapshots

        return snapshots.list_all(self.place.domain())

    def restore(self, name: str) -> None:
        from . import definition, power, snapshots

        domain = self.place.own_domain()
        self.place.make_ready()
        snapshots.restore(domain, name)
        # The domain has the sizes and the image of that time; the next start defines it as it is to be now.
        files.remove(self.folder / definition.DEFINED)
        power.set_clock(domain)
        if hypervisor.state(domain) is State.RUNNING:
            power.begin_helper(self.place)

    def forget(self, name: str) -> None:
        from . import snapshots

        snapshots.forget(self.place.own_domain(), name)

    # Resize

    def resize(self, wanted: Machine) -> list[str]:
        from . import sizes

        domain = self.place.own_domain()
        running = domain.isActive()
        if wanted.disk_mib != self.machine.disk_mib:
            sizes.grow_disk(domain, self.place.pool, self.place.volume("disk.qcow2"), wanted.disk_mib << 20)
        later = [field for field in ("memory_mib", "cpus") if getattr(wanted, field) != getattr(self.machine, field)]
        return later if running else []

    # Autostart

    def set_autostart(self, on: bool) -> None:
        with explained("the machine's autostart can't be set"):
            self.place.own_domain().setAutostart(int(on))

    def autostart(self) -> bool:
        with explained("can't read the machine's autostart setting from libvirt"):
            return bool(self.place.domain().autostart())

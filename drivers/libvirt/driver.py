"""The driver: what libvirt is asked to do, and when."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine import files, locks
from machine.driver import Address, Driver, Machine, Orphan, Snapshot, State
from machine.errors import DriverFailed, MachineError

from . import domain, hypervisor
from .connection import Connection, explained
from .network import Network
from .volumes import Pool

if TYPE_CHECKING:
    import libvirt

    from machine.run import Run

    from .events import Events

ADDRESS = "address"
# Seconds for Docker to say what it publishes, when `status` asks.
DOCKER_TIMEOUT = 5.0
# What QEMU and passt say of a port that they can't open.
_NO_FORWARD = re.compile("host forwarding rule|Failed to bind port")
# What the helper of a running machine is started as: python -m.
MODULE = "machine.drivers.libvirt"
LOCK = "libvirt.lock"
# Seconds for another command that uploads an image to another host.
PATIENCE = 900.0


@dataclass(frozen=True)
class Options:
    uri: str = field(
        default="qemu:///system",
        metadata={
            "help": "Whose libvirtd: qemu:///system, qemu:///session, qemu+ssh://user@host/system.",
            "metavar": "URI",
            "envvar": "LIBVIRT_DEFAULT_URI",
        },
    )
    network: str = field(
        default="machine",
        metadata={
            "help": "The network; made, with NAT, when there is none.",
            "metavar": "NAME",
            "envvar": "LIBVIRT_NETWORK",
        },
    )
    pool: str = field(
        default="machine",
        metadata={"help": "The storage pool; made when there is none.", "metavar": "NAME", "envvar": "LIBVIRT_POOL"},
    )
    user_network: str = field(
        default="auto",
        metadata={
            "help": "For qemu:///session: passt or slirp (QEMU's own); auto takes passt where libvirt has it.",
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


class Libvirt(Driver):
    name: ClassVar[str] = "libvirt"
    Options: ClassVar[type] = Options
    _events: Events | None = None
    _pressed = False

    @classmethod
    def is_available(cls) -> bool:
        return sys.platform != "win32" and find_spec("libvirt") is not None

    @functools.cached_property
    def connection(self) -> Connection:
        return Connection(self.option("uri"))

    @functools.cached_property
    def network(self) -> Network:
        return Network(self.connection, self.option("network"))

    @functools.cached_property
    def pool(self) -> Pool:
        return Pool(self.connection, self.option("pool"))

    def on_loopback(self) -> bool:
        return self.connection.uri.is_session or self.connection.uri.over_ssh

    def lowest_port(self) -> int:
        """A libvirtd of root's runs QEMU as another user (qemu.conf), in a session, too."""
        from machine.ports import first_unprivileged

        return first_unprivileged() if self.connection.uri.is_session and os.geteuid() == 0 else 0

    def is_local(self) -> bool:
        return not self.connection.uri.is_remote

    def architecture(self) -> str:
        with explained(f"{self.connection.uri} doesn't tell what it runs on"):
            return str(self.connection.raw.getInfo()[0])

    def check(self) -> list[str]:
        from . import checks

        return checks.check(self)

    def create(self) -> None:
        from . import definition

        if self.find() is not None:
            return
        with self._alone():
            if not self.connection.uri.is_session:
                files.write(self.home / ADDRESS, self.network.reserve(self.machine.mac) + "\n")
            definition.define(self)

    def start(self) -> bool:
        import libvirt

        from . import definition

        there = self._own()
        with explained(f'the machine "{self.machine.name}" can\'t be started'):
            if there.isActive():
                self._go_on(there)
                return False
            saved = bool(there.hasManagedSaveImage())
            with self._alone():
                self._make_ready()
                if not saved:
                    definition.define(self)
            if not saved:
                self.pool.replace(self.volume("seed.iso"), self.home.seed)
                self._rotate_console()
                self._switch_on(self._domain())
            else:
                # libvirt removes the state after the guest began to run, and only warns where it can't.
                there.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
                self._go_on(there)
        self._begin_helper()
        return saved

    def stop(self) -> None:
        there = self._own()
        state = self.state()
        if state is State.SAVED:
            name = self.machine.name
            raise DriverFailed(
                f'the machine "{name}" is suspended',
                hint=f"go on: machine resume {name}; or drop its memory: machine kill {name}",
            )
        with explained("the machine can't be asked to shut down"):
            if state is State.PAUSED:
                hypervisor.drop_state(there)
                there.resume()
            self._press(there)

    def kill(self) -> None:
        there = self._own()
        with explained("the machine can't be killed"):
            if there.isActive():
                there.destroy()
            hypervisor.drop_state(there)

    def remove(self) -> None:
        from . import removal

        removal.remove(self)

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        from . import orphans

        return orphans.find(store, known, run)

    def state(self) -> State:
        there = self._domain()
        state = hypervisor.state(there)
        if state is State.RUNNING:
            # Of a guest that libvirt let go on by itself (autostart), and whose state it couldn't remove then.
            hypervisor.drop_used_state(there)
            self._ensure_helper()
        return state

    def pause(self, seconds: float) -> None:
        from .events import Events

        if self._events is None:
            try:
                self._events = Events(str(self.connection.uri), self.machine.uuid)
            except DriverFailed:
                super().pause(seconds)
                return
        self._events.wait(seconds)

    def address(self) -> Address:
        if self.machine.address:
            return self.machine.address
        return Address(self.reserved())

    def warnings(self) -> list[str]:
        from machine.ports import warnings

        found = warnings(self.home) if self.on_loopback() else self._only_inside()
        return super().warnings() + found + self._warnings_of_network()

    def _only_inside(self) -> list[str]:
        """A machine with an address of its own on a network has no helper that could forward these."""
        from machine import docker, ports

        with contextlib.suppress(MachineError):
            containers = docker.Client(self.machine, self.home, self.address(), DOCKER_TIMEOUT).containers()
            return ports.only_inside(ports.published(containers))
        return []

    def _warnings_of_network(self) -> list[str]:
        if self.connection.uri.is_session:
            return []
        lease, reserved = self.network.lease(self.machine.mac), self.reserved()
        if lease and lease != reserved:
            return [f"the machine has taken the address {lease}, though {reserved} is reserved for it"]
        return []

    def diagnosis(self) -> str:
        try:
            there = self._domain()
            lines = [f"libvirt says: {hypervisor.reason(there)}"]
            if not self.connection.uri.is_session:
                lines.append(
                    f"lease on the network {self.network.name}: {self.network.lease(self.machine.mac) or 'none'}"
                )
        except MachineError as error:
            return f"libvirt says: {error.message}"
        return "\n".join(lines)

    def suspend(self) -> None:
        with explained(f'the machine "{self.machine.name}" can\'t be suspended'):
            self._own().managedSave()

    def snapshot(self, name: str) -> None:
        from . import snapshots

        snapshots.take(self._own(), name)

    def snapshots(self) -> list[Snapshot]:
        from . import snapshots

        return snapshots.list_all(self._domain())

    def restore(self, name: str) -> None:
        from . import definition, snapshots

        there = self._own()
        self._make_ready()
        snapshots.restore(there, name)
        # The domain has the sizes and the image of that time; the next start defines it as it is to be now.
        files.remove(self.home / definition.DEFINED)
        self._set_clock(there)
        if hypervisor.state(there) is State.RUNNING:
            self._begin_helper()

    def forget(self, name: str) -> None:
        from . import snapshots

        snapshots.forget(self._own(), name)

    def resize(self, wanted: Machine) -> list[str]:
        from . import sizes

        there = self._own()
        running = there.isActive()
        if wanted.disk_mib != self.machine.disk_mib:
            sizes.grow_disk(there, self.pool, self.volume("disk.qcow2"), wanted.disk_mib << 20)
        later = [field for field in ("memory_mib", "cpus") if getattr(wanted, field) != getattr(self.machine, field)]
        return later if running else []

    def set_autostart(self, on: bool) -> None:
        with explained("the machine's autostart can't be set"):
            self._own().setAutostart(int(on))

    def autostart(self) -> bool:
        with explained("libvirt doesn't tell whether the machine is started by itself"):
            return bool(self._domain().autostart())

    def _switch_on(self, there: libvirt.virDomain) -> None:
        import libvirt

        try:
            there.create()
        except libvirt.libvirtError as error:
            if self.on_loopback() and _NO_FORWARD.search(str(error)):
                from machine.ports import refused

                raise refused(self.address(), str(error)) from error
            raise

    def _begin_helper(self) -> None:
        from machine import helper

        if self._needs_helper():
            helper.begin(self.home, MODULE)

    def _ensure_helper(self) -> None:
        """Start the helper where there is none: this host, or the helper, may have ended before the machine did."""
        from machine import helper

        if self._needs_helper():
            helper.ensure(self.home, MODULE)

    def _needs_helper(self) -> bool:
        return self.on_loopback() or self.connection.uri.is_remote

    def option(self, name: str) -> str:
        return str(self.machine.options.get(name) or getattr(Options, name))

    def find(self) -> libvirt.virDomain | None:
        return self.connection.domain(self.machine.uuid)

    def _domain(self) -> libvirt.virDomain:
        if (there := self.find()) is None:
            name = self.machine.name
            raise DriverFailed(
                f'the domain of the machine "{name}" is no longer defined on {self.connection.uri}',
                hint=f"machine rm {name}",
            )
        return there

    def _own(self) -> libvirt.virDomain:
        """For a verb that changes the domain. Raises MachineError when that is another folder's."""
        there = self._domain()
        domain.refuse_copy(there, self.machine, self.home)
        return there

    def volume(self, what: str) -> str:
        return f"machine-{self.machine.uuid}-{what}"

    def _alone(self) -> AbstractContextManager[None]:
        """Held while network, pool and images are made, which the machines of a store share."""
        what = "another command to finish with libvirt's network and images"
        return locks.held(self.home.store / LOCK, what=what, timeout=PATIENCE, say=self.say)

    def _make_ready(self) -> None:
        """Start what the domain lies on: after a reboot of the host it may not have been started by itself."""
        self.pool.ready()
        if not self.connection.uri.is_session:
            self.network.ready()

    def _rotate_console(self) -> None:
        if self.connection.uri.is_remote:
            self.pool.delete(self.volume("console.log"))
            self.pool.make(self.volume("console.log"), size=0)
        # Made here, so that it is ours: libvirt's virtlogd, which is root, only adds to it.
        if self.home.console.exists():
            self.home.console.replace(self.home.console.with_suffix(".log.1"))
        files.write(self.home.console, "")

    def _go_on(self, there: libvirt.virDomain) -> None:
        """Let the guest run; before, its saved state goes: it would be older than the disk, and loaded by a start."""
        hypervisor.drop_state(there)
        there.resume()
        self._set_clock(there)

    def _press(self, there: libvirt.virDomain) -> None:
        """ACPI's power button; the second time, when that didn't help, the guest agent as well."""
        import libvirt

        there.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        if self._pressed:
            with contextlib.suppress(libvirt.libvirtError):
                there.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
        self._pressed = True

    def _set_clock(self, there: libvirt.virDomain) -> None:
        """A guest that goes on after a while has missed time; without an agent it must live with that."""
        import libvirt

        with contextlib.suppress(libvirt.libvirtError):
            if there.isActive():
                there.setTime({"seconds": int(time.time()), "nseconds": 0})

    def reserved(self) -> str:
        try:
            return (self.home / ADDRESS).read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise DriverFailed(f'the machine "{self.machine.name}" has no address yet') from error

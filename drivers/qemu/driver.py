"""The driver: what QEMU is asked to do, and when."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from dataclasses import dataclass, field
from typing import ClassVar

from machine.driver import Driver, State
from machine.errors import CheckFailed, DriverFailed, NoSuchImage, ToolFailed, ToolMissing
from machine.paths import Image
from machine.run import detach, which

from . import acceleration, ports
from .argv import AGENT, DISK, MONITOR, PIDFILE, PORTS_MONITOR, argv
from .process import Process
from .qmp import GuestAgent, Qmp

# Of a Unix socket's path, with the closing zero: 108 on Linux, 104 on macOS.
SOCKET_PATH = 103 if sys.platform == "darwin" else 107
INSTALL = "install QEMU: sudo apt install qemu-system-x86 qemu-utils, or: brew install qemu"
_STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "suspended": State.PAUSED,
    "shutdown": State.STOPPING,
    "prelaunch": State.STARTING,
    "inmigrate": State.STARTING,
}


@dataclass(frozen=True)
class Options:
    accelerator: str = field(
        default="auto",
        metadata={"help": "kvm, hvf, whpx or tcg; auto proves which works", "envvar": "QEMU_ACCELERATOR"},
    )


class Qemu(Driver):
    name: ClassVar[str] = "qemu"
    Options: ClassVar[type] = Options

    @property
    def process(self) -> Process:
        return Process(self.home / PIDFILE)

    def check(self) -> list[str]:
        if sys.platform == "win32":
            raise CheckFailed("QEMU machines need Unix sockets", hint="use VirtualBox: --driver virtualbox")
        binary = self._binary()
        if which("qemu-img") is None:
            raise ToolMissing("qemu-img", hint=INSTALL)
        if len(os.fsencode(self.home / PORTS_MONITOR)) > SOCKET_PATH:
            raise CheckFailed(
                f"the path of the store is too long for a socket: {self.home.folder}",
                hint="choose a shorter one: MACHINE_STORAGE_PATH=/tmp/machine",
            )
        return [note] if (note := acceleration.why_not(self._accelerator(binary))) else []

    def create(self) -> None:
        disk = self.home / DISK
        if not disk.exists():
            self.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, f"{self.machine.disk_mib}M"])

    def start(self) -> None:
        if self.process.find():
            return self._go_on()
        self._rotate_console()
        try:
            self.run(self.argv(), timeout=60)
        except ToolFailed as error:
            raise self._explained(error) from error
        self._forward_published_ports()
        return None

    def stop(self) -> None:
        with contextlib.suppress(DriverFailed), self._monitor() as monitor:
            monitor.execute("system_powerdown")

    def kill(self) -> None:
        # QEMU writes out what it holds of the disk's tables when it is asked to quit.
        with contextlib.suppress(DriverFailed), Qmp(self.home / MONITOR, timeout=2) as monitor:
            monitor.execute("quit")
            with contextlib.suppress(DriverFailed):
                while True:
                    monitor.receive()
        self.process.kill()

    def remove(self) -> None:
        self.process.kill()

    def state(self) -> State:
        if not self.process.find():
            return State.STOPPED
        try:
            with Qmp(self.home / MONITOR, timeout=2) as monitor:
                return _STATES.get(monitor.execute("query-status")["status"], State.ERROR)
        except DriverFailed:
            return State.ERROR if self.process.find() else State.STOPPED

    def warnings(self) -> list[str]:
        address = self.address()
        return [
            f"port {port} is published, but taken on {address.host} by another program of this host"
            for port in ports.taken(self.home)
        ]

    def argv(self) -> list[str]:
        image = Image(self.machine.image)
        if not image.kernel.exists():
            raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="build it: machine iso build")
        binary = self._binary()
        accelerator = self._accelerator(binary)
        return argv(
            self.machine,
            self.home,
            binary=binary,
            architecture=_architecture(),
            accelerator=accelerator,
            cpu=acceleration.cpu(accelerator),
            image=image,
            command_line=image.command_line.read_text().strip(),
        )

    def agent(self) -> GuestAgent:
        return GuestAgent(self.home / AGENT)

    def _go_on(self) -> None:
        with self._monitor() as monitor:
            monitor.execute("cont")

    def _monitor(self) -> Qmp:
        return Qmp(self.home / MONITOR)

    def _binary(self) -> str:
        if binary := which(f"qemu-system-{_architecture()}"):
            return binary
        raise ToolMissing(f"qemu-system-{_architecture()}", hint=INSTALL)

    def _accelerator(self, binary: str) -> str:
        chosen = str(self.machine.options.get("accelerator", "auto"))
        if chosen != "auto":
            return chosen
        return acceleration.choose(binary, self.home.store / "acceleration.json", self.run)

    def _rotate_console(self) -> None:
        if self.home.console.exists():
            self.home.console.replace(self.home.console.with_suffix(".log.1"))

    def _forward_published_ports(self) -> None:
        with (self.home / "ports.log").open("wb") as log:
            detach([sys.executable, "-m", "machine.drivers.qemu", self.home.folder], output=log)

    def _explained(self, error: ToolFailed) -> DriverFailed:
        if "host forwarding" in error.stderr or "Address already in use" in error.stderr:
            address = self.address()
            return DriverFailed(
                f"port {address.docker_port} or {address.ssh_port} on {address.host} is taken by another program",
                details=error.details,
                hint=f"see which: ss -ltnp 'src {address.host}'",
            )
        return DriverFailed(error.message, details=error.details, hint="machine doctor")


def _architecture() -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())

"""The driver: what QEMU is asked to do, and when."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from machine import filesystem, links
from machine.driver import Driver, Export, Machine, Reach, Snapshot, State
from machine.driver import Template as KeptTemplate
from machine.errors import CheckFailed, DriverFailed, EngineRefused, MachineError, NoSuchImage, ToolFailed, ToolMissing
from machine.paths import Home, Image
from machine.reasons import reason
from machine.resources import architecture
from machine.run import which

from . import cloud_image, sockets
from .argv import (
    AGENT,
    BASE_DISK,
    CLONE_OF,
    DISK,
    MONITOR,
    PARTS,
    PIDFILE,
    SUSPENDED,
    Host,
    Memory,
    argv,
)
from .process import Process, use_small_pages
from .qmp import GuestAgent, Qmp

# What the helper of a running machine is started as: python -m.
MODULE = "machine.drivers.qemu"
INSTALL = "brew install qemu" if sys.platform == "darwin" else "sudo apt install qemu-system-x86 qemu-utils"
ACCELERATORS = ("auto", "kvm", "hvf", "whpx", "tcg")
_STATES = {
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "suspended": State.PAUSED,
    "finish-migrate": State.PAUSED,
    "postmigrate": State.PAUSED,
    "save-vm": State.PAUSED,
    "restore-vm": State.PAUSED,
    "shutdown": State.STOPPING,
    "prelaunch": State.STARTING,
    "inmigrate": State.STARTING,
}


@dataclass(frozen=True)
class Options:
    accelerator: str = field(
        default="auto",
        metadata={
            "help": "kvm, hvf, whpx or tcg; auto tries which works.",
            "metavar": "NAME",
            "envvar": "QEMU_ACCELERATOR",
        },
    )
    cold: bool = field(
        default=False, metadata={"flag": "--cold", "help": "Boot, instead of cloning a machine that is booted already."}
    )


class Qemu(Driver):
    name: ClassVar[str] = "qemu"
    cloud_images: ClassVar[bool] = True
    parts: ClassVar[frozenset[str]] = PARTS
    Options: ClassVar[type] = Options

    @property
    def process(self) -> Process:
        return Process(self.home / PIDFILE, self.machine.uuid)

    @classmethod
    def is_available(cls) -> bool:
        return sys.platform != "win32" and which(f"qemu-system-{architecture()}") is not None

    def check(self) -> list[str]:
        if sys.platform == "win32":
            raise CheckFailed("QEMU machines need Unix sockets", hint="use VirtualBox: --driver virtualbox")
        if self._chosen() not in ACCELERATORS:
            raise CheckFailed(
                f'QEMU has no accelerator "{self._chosen()}"', hint=f"choose one of {', '.join(ACCELERATORS)}"
            )
        binary = self._binary()
        if which("qemu-img") is None:
            raise ToolMissing("qemu-img", hint=INSTALL)
        sockets.check(self.home.folder)
        filesystem.check_sockets(self.home.store)
        from machine import acceleration

        return [note] if (note := acceleration.why_not(self._accelerator(binary))) else []

    def create(self) -> None:
        if (self.home / DISK).exists():
            return None
        if self.machine.options.get("cold") or not Image(self.machine.image).clones.exists():
            return self.make_disk()
        from . import clone

        try:
            clone.lay_disk(self)
        except EngineRefused:
            raise  # and so would the machine's own
        except (MachineError, OSError) as error:
            self.say(f"no template ({reason(error)}): booting cold")
            self.make_disk()
        return None

    def make_disk(self) -> None:
        (self.home / DISK).unlink(missing_ok=True)
        if cloud_image.boots(Image(self.machine.image)):
            return cloud_image.lay_disk(self)
        self.run(["qemu-img", "create", "-q", "-f", "qcow2", self.home / DISK, f"{self.machine.disk_mib}M"])
        return None

    def start(self) -> bool:
        from . import suspended

        suspended.settle(self)
        if self.process.find():
            with self.monitor() as monitor:
                suspended.go_on(monitor, self.home)
            return False
        warm = True
        if (self.home / SUSPENDED).exists():
            suspended.wake(self)
        elif (self.home / CLONE_OF).exists():
            warm = self._start_clone()
        else:
            self.launch(Memory(self.machine.memory_mib))
            warm = False
        self._begin_helper()
        return warm

    def launch(self, memory: Memory, *, incoming: bool = False, paused: bool = False) -> None:
        """Start QEMU; it is there when this returns. Raises DriverFailed."""
        command = self.argv(memory, incoming=incoming)
        self.process.refuse_second()
        self._rotate_console()
        if self.host().accelerator == "tcg":
            use_small_pages()
        try:
            self.run([*command, *(["-S"] if paused else [])], timeout=60)
        except ToolFailed as error:
            raise self._explained(error) from error

    def stop(self) -> None:
        with contextlib.suppress(DriverFailed), self.monitor() as monitor:
            if _STATES.get(monitor.execute("query-status").get("status")) is State.PAUSED:
                from . import suspended

                suspended.go_on(monitor, self.home)
            monitor.execute("system_powerdown")

    def kill(self) -> None:
        from . import suspended

        self.end()
        suspended.forget(self.home)

    def end(self) -> None:
        """End QEMU, and keep what a suspended machine was."""
        # QEMU writes out what it holds of the disk's tables when it is asked to quit.
        with contextlib.suppress(DriverFailed), Qmp(self.home / MONITOR, timeout=2) as monitor:
            monitor.execute("quit")
            with contextlib.suppress(DriverFailed):
                while True:
                    monitor.receive()
        self.process.kill()

    def suspend(self) -> None:
        from . import suspended

        suspended.suspend(self)

    def resize(self, wanted: Machine) -> list[str]:
        from . import sizes

        return sizes.resize(self, wanted)

    def export(self) -> AbstractContextManager[Export]:
        from . import portable

        return portable.export(self)

    def reaches(self) -> list[Reach]:
        return []

    def accept(self) -> Machine:
        from . import portable

        return portable.accept(self)

    @classmethod
    def templates(cls, store: Path) -> list[KeptTemplate]:
        from . import template

        return template.kept(store)

    @classmethod
    def remove_template(cls, store: Path, key: str) -> None:
        from . import template

        template.remove(store, key)

    @classmethod
    def sweep_templates(cls, store: Path) -> None:
        from . import template

        template.sweep(store)

    def snapshot(self, name: str) -> None:
        from . import snapshots

        snapshots.take(self, name)

    def snapshots(self) -> list[Snapshot]:
        from . import snapshots

        return snapshots.found(self)

    def restore(self, name: str) -> None:
        from . import snapshots

        snapshots.restore(self, name)
        if self.process.find():
            self._begin_helper()

    def forget(self, name: str) -> None:
        from . import snapshots

        snapshots.forget(self, name)

    def remove(self) -> None:
        self.process.kill()
        links.forget(self.home.folder)  # the core knows nothing of a template's machine

    def state(self) -> State:
        has_state = (self.home / SUSPENDED).exists()
        if not self.process.find():
            return State.SAVED if has_state else State.STOPPED
        try:
            status = self.run_state()
        except DriverFailed:
            return State.ERROR if self.process.find() else State.STOPPED
        state = _STATES.get(status, State.ERROR)
        if state is State.RUNNING and self.machine.address:
            from machine import helper

            helper.ensure(self.home, MODULE)
        # It is being loaded, or its loading was interrupted.
        return State.SAVED if has_state and state is State.STARTING else state

    def diagnosis(self) -> str:
        found = super().diagnosis()
        with contextlib.suppress(DriverFailed):
            # QEMU stops a guest whose write finds no room (werror=enospc, its default); other errors the guest gets.
            if self.run_state() == "io-error":
                return f"{found}: the host's disk is full, the one that holds {self.home.folder}"
        return found

    def run_state(self) -> str:
        """QEMU's own word for its state. Raises DriverFailed."""
        with Qmp(self.home / MONITOR, timeout=2) as monitor:
            return str(monitor.execute("query-status")["status"])

    def warnings(self) -> list[str]:
        from machine import ports

        return super().warnings() + ports.warnings(self.home)

    def argv(self, memory: Memory, *, incoming: bool = False) -> list[str]:
        image = Image(self.machine.image)
        if not image.file.exists():
            raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
        command_line = "" if cloud_image.boots(image) else image.command_line.read_text(encoding="utf-8").strip()
        return argv(
            self.machine,
            self.home,
            host=self.host(),
            image=image,
            command_line=command_line,
            memory=memory,
            incoming=incoming,
            sockets=sockets.folder(self.home.folder),
        )

    def host(self) -> Host:
        from machine import acceleration

        binary = self._binary()
        accelerator = self._accelerator(binary)
        return Host(binary, architecture(), accelerator, acceleration.cpu(accelerator), sys.platform)

    def another(self, machine: Machine, home: Home) -> Qemu:
        """The driver of another machine, which is run as this one is."""
        return Qemu(machine, home, self.run)

    def agent(self) -> GuestAgent:
        return GuestAgent(self.home / AGENT)

    def _start_clone(self) -> bool:
        """Whether the clone goes on from its template; when that fails, it boots."""
        from . import clone

        try:
            clone.start(self)
            return True
        except (MachineError, OSError) as error:
            self.say(f"cloning failed ({reason(error)}): booting cold")
        self.end()
        # The template's disk has an identity that others have, too.
        self.make_disk()
        for name in (CLONE_OF, BASE_DISK):
            (self.home / name).unlink(missing_ok=True)
        self.launch(Memory(self.machine.memory_mib))
        return False

    def monitor(self) -> Qmp:
        return Qmp(self.home / MONITOR)

    def _binary(self) -> str:
        if binary := which(f"qemu-system-{architecture()}"):
            return binary
        raise ToolMissing(f"qemu-system-{architecture()}", hint=INSTALL)

    def _chosen(self) -> str:
        return str(self.machine.options.get("accelerator", "auto"))

    def _accelerator(self, binary: str) -> str:
        from machine import acceleration

        if (chosen := self._chosen()) != "auto":
            return chosen
        return acceleration.choose(binary, self.home.store / "acceleration.json", self.run)

    def _rotate_console(self) -> None:
        if self.home.console.exists():
            self.home.console.replace(self.home.console.with_suffix(".log.1"))

    def _begin_helper(self) -> None:
        from machine import helper

        helper.begin(self.home, MODULE)

    def _explained(self, error: ToolFailed) -> DriverFailed:
        if "host forwarding" in error.stderr or "Address already in use" in error.stderr:
            from machine import ports

            return ports.refused(self.address(), error.stderr)
        return DriverFailed(error.message, details=error.details, hint="machine doctor")

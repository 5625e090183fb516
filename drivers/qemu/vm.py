"""One virtual machine of QEMU: its command line, its process, its monitor and its guest agent.

The driver and its parts (clones, suspend, snapshots, sizes) work with this object; it knows none of them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from machine import links, packages
from machine.driver import Machine, State
from machine.errors import DriverFailed, MachineError, NoSuchImage, ToolFailed, ToolMissing
from machine.paths import Image, MachineFolder
from machine.resources import architecture
from machine.run import Run, which

from . import sockets
from .argv import AGENT, MONITOR, PIDFILE, SUSPENDED, Host, Memory, argv
from .process import Process, use_small_pages
from .qmp import GuestAgent, Qmp

# Seconds for a question that only reads QEMU's state, and for the wish that it ends.
SHORT = 2.0
# Seconds: QEMU goes into the background when its devices are there.
LAUNCH = 60.0
# QEMU's RunState (qapi/run-state.json); one that isn't here is an error.
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
class Vm:
    """run: starts programs. say: told what the user should know.

    dataclasses.replace(vm, machine=…) is the same virtual machine with other settings, or in another folder.
    """

    machine: Machine
    folder: MachineFolder
    run: Run
    say: Callable[[str], None]

    @property
    def process(self) -> Process:
        return Process(self.folder / PIDFILE, self.machine.uuid)

    @property
    def patience(self) -> int:
        """How many times longer than usual its guest may take: other processors are emulated so much more slowly."""
        return 1 if self.machine.architecture in {"", architecture()} else 3

    def monitor(self) -> Qmp:
        """Raises DriverFailed when QEMU doesn't answer."""
        return Qmp(self.folder / MONITOR)

    def agent(self) -> GuestAgent:
        """Raises DriverFailed when the guest doesn't answer."""
        return GuestAgent(self.folder / AGENT)

    def set_clock(self) -> None:
        """Set the guest's clock to the host's, where its agent answers."""
        with contextlib.suppress(MachineError), self.agent() as agent:
            agent.set_time()

    def launch(self, memory: Memory, *, incoming: bool = False, paused: bool = False) -> None:
        """Start QEMU; it is there when this returns. Raises DriverFailed."""
        command = self.argv(memory, incoming=incoming)
        self.process.refuse_second()
        self._rotate_console()
        if self.host().accelerator == "tcg":
            use_small_pages()
        try:
            self.run([*command, *(["-S"] if paused else [])], timeout=LAUNCH)
        except ToolFailed as error:
            raise self._explained(error) from error

    def end(self) -> None:
        """End QEMU, and keep what a suspended machine was. Succeeds when it has ended already."""
        # QEMU writes out what it holds of the disk's tables when it is asked to quit.
        with contextlib.suppress(DriverFailed), Qmp(self.folder / MONITOR, timeout=SHORT) as monitor:
            monitor.execute("quit")
            with contextlib.suppress(DriverFailed):
                while True:
                    monitor.receive()
        self.process.kill()

    def remove(self) -> None:
        """End QEMU, and remove what lies outside of its folder."""
        self.process.kill()
        links.forget(self.folder.path)  # the core knows nothing of a template's machine

    def state(self) -> State:
        has_state = (self.folder / SUSPENDED).exists()
        if not self.process.find():
            return State.SAVED if has_state else State.STOPPED
        try:
            state = _STATES.get(self.run_state(), State.ERROR)
        except DriverFailed:
            return State.ERROR if self.process.find() else State.STOPPED
        # It is being loaded, or its loading was interrupted.
        return State.SAVED if has_state and state is State.STARTING else state

    def run_state(self) -> str:
        """QEMU's own word for its state. Raises DriverFailed."""
        with Qmp(self.folder / MONITOR, timeout=SHORT) as monitor:
            return str(monitor.execute("query-status")["status"])

    def diagnosis(self) -> str:
        """See driver.Driver."""
        text = f"the hypervisor says: {self.state()}"
        with contextlib.suppress(DriverFailed):
            # QEMU stops a guest whose write finds no room (werror=enospc, its default); other errors the guest gets.
            if self.run_state() == "io-error":
                return f"{text}: the host's disk is full, the one that holds {self.folder.path}"
        return text

    def argv(self, memory: Memory, *, incoming: bool = False) -> list[str]:
        """The command that starts it. Raises NoSuchImage and ToolMissing."""
        image = Image(self.machine.image)
        if not image.file.exists():
            raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
        command_line = "" if has_boot_loader(image) else image.command_line.read_text(encoding="utf-8").strip()
        return argv(
            self.machine,
            self.folder,
            host=self.host(),
            image=image,
            command_line=command_line,
            memory=memory,
            incoming=incoming,
            sockets=sockets.way(self.folder.path),
        )

    def host(self) -> Host:
        """How this host runs it. Raises ToolMissing."""
        from machine import acceleration

        wanted = self.machine.architecture or architecture()
        binary = find_binary(wanted)
        accelerator = str(self.machine.options.get("accelerator", "auto"))
        if wanted != architecture():
            accelerator = "tcg"  # whatever was asked for, or is proved here: that runs this host's own processor
        elif accelerator == "auto":
            accelerator = acceleration.choose(binary, self.folder.store / "acceleration.json", self.run)
        return Host(binary, wanted, accelerator, acceleration.cpu(accelerator, wanted), sys.platform)

    def _rotate_console(self) -> None:
        if self.folder.console.exists():
            self.folder.console.replace(self.folder.console.with_suffix(".log.1"))

    def _explained(self, error: ToolFailed) -> DriverFailed:
        address = self.machine.address
        if address and ("host forwarding" in error.stderr or "Address already in use" in error.stderr):
            from machine.docker import ports

            return ports.refused(address, error.stderr)
        return DriverFailed(error.message, details=error.details, hint="machine doctor")


def is_paused(run_state: str) -> bool:
    """Whether the guest stands still, by QEMU's own word for its state."""
    return _STATES.get(run_state) is State.PAUSED


def find_binary(wanted: str) -> str:
    """The QEMU for machines with that processor. Raises ToolMissing."""
    name = f"qemu-system-{wanted}"
    if binary := which(name):
        return binary
    raise ToolMissing(name, hint=packages.hint(name))


def has_boot_loader(image: Image) -> bool:
    """Whether it boots by itself, as cloud images do: our own image brings its kernel."""
    return image.file.exists() and not image.kernel.exists()

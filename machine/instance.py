"""A machine in this store: its settings, its folder, and its driver, docker client and shell.

Only this module makes drivers. Modules below it take the part that they need: a driver, a docker client, a shell.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from machine import store
from machine.errors import MachineError, NotRunning, Usage, WaitTimeout
from machine.spec import State

if TYPE_CHECKING:
    from machine.docker import api
    from machine.driver import Driver
    from machine.paths import MachineFolder
    from machine.spec import Address, Machine
    from machine.ssh.remote import Shell

# Seconds for Docker to answer.
DOCKER_TIMEOUT = 10.0


@dataclass(frozen=True)
class Instance:
    """folder is the machine's, which need not exist yet."""

    machine: Machine
    folder: MachineFolder

    @property
    def name(self) -> str:
        return self.machine.name

    @cached_property
    def driver(self) -> Driver:
        """Raises Usage when there is none of its name here, MachineError when it can't be loaded."""
        from machine import registry, run

        return registry.load(self.machine.driver)(self.machine, self.folder, run.run)

    @cached_property
    def address(self) -> Address:
        """Where it is reached; its driver is asked only when machine.json doesn't say. Raises DriverFailed."""
        return self.machine.address or self.driver.address()

    @property
    def url(self) -> str:
        """The URL of its Docker daemon, "" while its address isn't known."""
        try:
            return self.address.url
        except MachineError:
            return ""

    @property
    def architecture(self) -> str:
        """Its processors, "" where they aren't known: of an existing host, or of one on another computer."""
        if self.machine.architecture:
            return self.machine.architecture
        from machine import resources

        with contextlib.suppress(MachineError):  # a driver that can't be loaded
            return resources.architecture() if self.driver.is_local() else ""
        return ""

    def docker(self, timeout: float = DOCKER_TIMEOUT) -> api.Client:
        """timeout in seconds, for connecting and for each read. Raises DriverFailed while its address isn't known."""
        from machine.docker import api

        return api.Client(self.machine, self.folder, self.address, timeout)

    def shell(self) -> Shell:
        """The way in, over SSH. Raises DriverFailed while its address isn't known."""
        from machine.ssh.remote import Shell

        return Shell(self.folder, self.address, self.machine.ssh_user)

    def state(self, *, timeout: float) -> State | None:
        """Its state; None when the hypervisor doesn't tell within timeout seconds. Raises MachineError."""
        from machine import probe

        found: list[State] = []
        failed: list[MachineError] = []

        def ask() -> None:
            try:
                found.append(self.driver.state())
            except MachineError as error:
                failed.append(error)

        probe.together([ask], timeout=timeout)
        if failed:
            raise failed[0]
        return found[0] if found else None

    def at(self, address: Address) -> Instance:
        """The same machine with an address. It keeps its driver, which may have connected to a hypervisor by now."""
        placed = Instance(dataclasses.replace(self.machine, address=address), self.folder)
        self.driver.machine = placed.machine
        vars(placed)["driver"] = self.driver
        return placed


def nobody(driver: str) -> Instance:
    """A machine that doesn't exist, to ask a driver what it thinks of this host."""
    from machine.spec import Machine

    name = "x" * 8
    machine = Machine(name=name, driver=driver, uuid="", mac="", image="", memory_mib=2048, cpus=1, disk_mib=20480)
    return Instance(machine, store.folder_of(name))


def load(name: str) -> Instance:
    """Raises NoSuchMachine, or StoreDamaged when machine.json can't be understood."""
    return Instance(store.load(name), store.folder_of(name))


def running(name: str, *, timeout: float = 10) -> Instance:
    """As `load`, for a machine that runs and that SSH reaches. timeout in seconds, for its hypervisor.

    Raises NotRunning, Usage when it is only the URL of a daemon, WaitTimeout when the hypervisor doesn't tell.
    """
    found = load(name)
    if not found.driver.kind.has_ssh:
        raise Usage(
            f'the machine "{name}" is only the URL of a Docker daemon: it has no SSH',
            hint="machine url " + name,
        )
    state = found.state(timeout=timeout)
    if state is None:
        raise WaitTimeout(f'the state of the machine "{name}"', timeout, hint="machine ls")
    if state is not State.RUNNING:
        raise NotRunning(name)
    return found


@contextlib.contextmanager
def changing(name: str) -> Iterator[Instance]:
    """Hold the machine's lock while a verb changes it. Raises NoSuchMachine, StoreDamaged, MachineError when busy."""
    with store.changing(name) as machine:
        yield Instance(machine, store.folder_of(name))


@contextlib.contextmanager
def reserve(
    wanted: Instance,
    place: Callable[[Instance, list[Machine]], Instance],
    undo: Callable[[Instance], None],
    say: Callable[[str], None],
) -> Iterator[Instance]:
    """Hold the name while a machine is made: it is in the store when the block ends well, else nothing is.

    place gives it an address, knowing the other machines; undo removes what was made outside of its folder; say is told
    when another command is waited for. Raises MachineExists, WaitTimeout.
    """
    placed = wanted

    def build(others: list[Machine]) -> Machine:
        nonlocal placed
        placed = place(wanted, others)
        return placed.machine

    with store.reserve(wanted.name, build, lambda machine, folder: undo(Instance(machine, folder)), say):
        yield placed

"""Suspend and start, cut off at every step: a state is never loaded over a disk that has been written to since.

QEMU is a model here. Its guest counts the writes to its disk, and remembers the count: a memory that doesn't know the
last one is older than the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
from machine.drivers.qemu import Qemu, migration, suspended
from machine.drivers.qemu.argv import DISK, SUSPENDED, SUSPENDED_LAYOUT, Memory
from machine.drivers.qemu.layout import Layout
from machine.drivers.qemu.vm import Vm

from machine import files, helper
from machine.driver import State
from machine.errors import DriverFailed
from machine.paths import MachineFolder

SECOND = 1_000_000_000


class Killed(BaseException):
    """This process got SIGKILL: whatever its handlers still try has no effect."""


@dataclass
class Model:
    """A QEMU with its guest and disk. Every step of ours goes through `step`, which fails at the step `at`."""

    folder: MachineFolder
    at: int = -1
    error: BaseException = field(default_factory=Killed)
    steps: int = 0
    killed: bool = False
    status: str = "running"
    alive: bool = True
    memory: int = 0
    boots: int = 0
    file: int | None = None

    def __post_init__(self) -> None:
        self.write()

    @property
    def disk(self) -> int:
        return int((self.folder / DISK).read_text())

    def write(self) -> None:
        """The guest writes to its disk."""
        self.memory += 1
        (self.folder / DISK).write_text(str(self.memory))

    def step(self) -> None:
        if self.killed:
            raise self.error
        self.steps += 1
        if self.steps - 1 == self.at:
            self.killed = isinstance(self.error, Killed)
            raise self.error

    def take(self, descriptor: int) -> None:
        """QEMU gets a copy of an open file."""
        self.step()
        self.close()
        self.file = os.dup(descriptor)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
        self.file = None

    def revive(self) -> None:
        """Start as the next command does: in a new process, without an interrupt."""
        self.killed, self.at = False, -1

    def execute(self, command: str, **arguments: Any) -> Any:
        self.step()
        if not self.alive:
            raise DriverFailed("QEMU closed the monitor")
        return getattr(self, f"_{command.replace('-', '_')}", lambda **_: {})(**arguments)

    def _query_status(self) -> dict[str, str]:
        return {"status": self.status}

    def _query_migrate(self) -> dict[str, str]:
        return {"status": "completed"}

    def _query_cpus_fast(self) -> list[object]:
        return [{}]

    def _query_memory_size_summary(self) -> dict[str, int]:
        return {"base-memory": 512 << 20}

    def _qom_get(self, **_: str) -> int:
        return 0

    def _stop(self) -> None:
        if self.status == "running":
            self.status = "paused"

    def _migrate(self, uri: str) -> None:
        if self.status == "postmigrate":
            raise DriverFailed("Can't migrate the vm that was paused due to previous migration")
        assert self.file is not None
        os.write(self.file, str(self.memory).encode())
        self.status = "postmigrate"

    def _migrate_incoming(self, uri: str) -> None:
        assert self.status == "inmigrate"
        assert self.file is not None
        self.memory = int(os.read(self.file, 20))
        assert self.memory == self.disk, "an old memory was loaded over a newer disk"
        self.status = "paused"

    def _cont(self) -> None:
        assert self.status not in {"inmigrate", "prelaunch"}, "nothing is in its memory"
        assert self.memory == self.disk, "an old memory runs over a newer disk"
        self.status = "running"
        self.write()


@dataclass(frozen=True)
class ModelledVm(Vm):  # type: ignore[misc]  # to mypy Vm is Any: it sees no machine.drivers
    model: Model

    @property
    def process(self) -> Any:
        return SimpleNamespace(find=lambda: self.model.alive)

    def launch(self, memory: Memory, *, incoming: bool = False, paused: bool = False) -> None:
        self.model.step()
        assert not self.model.alive
        self.model.alive = True
        if incoming:
            self.model.status, self.model.memory = "inmigrate", -1
            return
        self.model.boots += 1
        self.model.status, self.model.memory = "running", self.model.disk
        self.model.write()

    def end(self) -> None:
        self.model.step()
        self.model.alive = False

    def run_state(self) -> str:
        return self.model.status

    def monitor(self) -> Any:
        return contextlib.nullcontext(self.model)

    def agent(self) -> Any:
        raise DriverFailed("no agent")


class Modelled(Qemu):  # type: ignore[misc]  # to mypy Qemu is Any: it sees no machine.drivers
    model: Model
    said: list[str]

    @property
    def vm(self) -> ModelledVm:
        return ModelledVm(self.machine, self.folder, self.run, self.say, self.model)


class Make(Protocol):
    """A running machine with a changed disk. Each call makes a new one; step `at` raises the error."""

    def __call__(self, at: int = -1, error: BaseException | None = None) -> Modelled: ...


@contextlib.contextmanager
def handed_over(model: Model, descriptor: int) -> Iterator[str]:
    model.take(descriptor)
    yield "fd:state"


@pytest.fixture
def make(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    steps: list[Model] = []

    def counted(function: Callable[..., None]) -> Callable[..., None]:
        def call(*words: Any, **named: Any) -> None:
            steps[-1].step()
            function(*words, **named)
            steps[-1].step()

        return call

    for name in ("move", "remove", "write"):
        monkeypatch.setattr(files, name, counted(getattr(files, name)))
    monkeypatch.setattr(os, "utime", counted(os.utime))
    monkeypatch.setattr(migration, "_handed_over", handed_over)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # thousands of them

    def make(at: int = -1, error: BaseException | None = None) -> Modelled:
        for path in qemu.folder.path.iterdir():
            path.unlink()
        made = Modelled(qemu.machine, qemu.folder, qemu.run)
        made.model = Model(qemu.folder, at, error or Killed())
        made.said = []
        made.say = made.said.append
        steps.append(made.model)
        return made

    yield make
    for model in steps:
        model.close()


def sleep_and_wake(dev: Modelled) -> None:
    dev.suspend()
    dev.start()


def count_steps(make: Make, work: Callable[[Modelled], None]) -> int:
    dev = make()
    work(dev)
    return dev.model.steps


def start(dev: Modelled) -> None:
    """As the core does."""
    dev.model.revive()
    if dev.state() is not State.RUNNING:
        dev.start()
    assert dev.state() is State.RUNNING
    assert dev.model.memory == dev.model.disk


def names(folder: MachineFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()} - {DISK, helper.LOCK, helper.LOG}


def each_step(make: Make, error: Callable[[], BaseException]) -> Iterator[Modelled]:
    """Machines whose suspend and start was cut off, each at another step."""
    total = count_steps(make, sleep_and_wake)
    assert total > 25
    for at in range(total):
        dev = make(at, error())
        with contextlib.suppress(Killed, KeyboardInterrupt, DriverFailed):
            sleep_and_wake(dev)
        yield dev


def test_nothing_is_left_of_a_whole_life(make: Make) -> None:
    dev = make()
    dev.suspend()
    assert names(dev.folder) == {SUSPENDED, SUSPENDED_LAYOUT}
    assert dev.state() is State.SAVED
    assert dev.start()
    assert names(dev.folder) == set()
    assert (dev.model.boots, dev.said) == (0, [])


def test_a_command_that_is_killed_loses_no_memory(make: Make) -> None:
    for dev in each_step(make, Killed):
        start(dev)
        assert dev.model.boots == 0, f"step {dev.model.at}"


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt, lambda: DriverFailed("no answer")])
def test_a_host_that_fails_costs_memory_at_worst(make: Make, error: Callable[[], BaseException]) -> None:
    """QEMU ends with the command, the machine is used for a while, and the host fails again."""
    for dev in each_step(make, error):
        dev.model.revive()
        for _ in range(2):
            dev.model.alive = False
            start(dev)
            dev.model.write()
        assert SUSPENDED not in names(dev.folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda: DriverFailed("no answer")])
def test_what_an_error_leaves_can_be_started_suspended_and_stopped(
    make: Make, error: Callable[[], BaseException]
) -> None:
    for verbs in ((start, Qemu.suspend, start), (Qemu.stop, start), (Qemu.kill, start)):
        for dev in each_step(make, error):
            dev.model.revive()
            for verb in verbs:
                if verb is not Qemu.suspend or dev.state() is State.RUNNING:
                    verb(dev)
            assert dev.state() is State.RUNNING
            assert SUSPENDED not in names(dev.folder)


def test_a_start_that_is_killed_twice(make: Make) -> None:
    asleep, total = (count_steps(make, work) for work in (Qemu.suspend, sleep_and_wake))
    for first in range(asleep - 6, total):
        for second in range(total - asleep + 2):
            dev = make(first)
            with contextlib.suppress(Killed):
                sleep_and_wake(dev)
            dev.model.killed, dev.model.steps, dev.model.at = False, 0, second
            with contextlib.suppress(Killed):
                if dev.state() is not State.RUNNING:
                    dev.start()
            start(dev)
            assert dev.model.boots == 0


def test_a_suspend_after_one_that_was_killed(make: Make) -> None:
    for dev in each_step(make, Killed):
        dev.model.revive()
        if dev.state() in {State.RUNNING, State.PAUSED}:
            dev.suspend()
        assert dev.state() is State.SAVED
        start(dev)
        assert dev.model.boots == 0


def test_a_state_that_was_used_is_dropped_with_a_word(make: Make) -> None:
    dev = make()
    dev.suspend()
    (dev.folder / SUSPENDED).rename(dev.folder / suspended.WOKEN)
    assert dev.state() is State.STOPPED
    dev.start()
    assert dev.model.boots == 1
    assert names(dev.folder) == set()
    (said,) = dev.said
    assert "was used already" in said
    assert "boots from its disk" in said


@pytest.mark.parametrize(("later", "boots"), [(10, 1), (-10, 0), (0, 0)])
def test_a_state_that_is_older_than_its_disk_is_dropped(make: Make, later: int, boots: int) -> None:
    """The state that an earlier version left, or a user who wrote to the disk."""
    dev = make()
    dev.suspend()
    when = (dev.folder / SUSPENDED).stat().st_mtime_ns + later * SECOND
    os.utime(dev.folder / DISK, ns=(when, when))
    dev.start()
    assert dev.model.boots == boots
    assert len(dev.said) == boots
    assert all("older than its disk" in said for said in dev.said)


def test_a_suspended_machine_is_dated_by_its_disk(make: Make) -> None:
    dev = make()
    os.utime(dev.folder / DISK, ns=(SECOND, SECOND))
    dev.suspend()
    assert (dev.folder / SUSPENDED).stat().st_mtime_ns == SECOND


def test_work_on_the_disks_file_keeps_the_state_that_fits(make: Make) -> None:
    dev = make()
    dev.suspend()
    later = (dev.folder / SUSPENDED).stat().st_mtime_ns + 10 * SECOND
    with suspended.state_kept(dev.folder):
        os.utime(dev.folder / DISK, ns=(later, later))
    dev.start()
    assert dev.model.boots == 0
    dev.suspend()
    os.utime(dev.folder / DISK, ns=(later * 2, later * 2))
    with suspended.state_kept(dev.folder):
        pass
    dev.start()
    assert dev.model.boots == 1


@pytest.mark.parametrize("status", ["inmigrate", "prelaunch"])
def test_a_qemu_that_never_ran_is_ended(make: Make, status: str) -> None:
    """A killed restore leaves such, perhaps with half of a snapshot in its memory."""
    dev = make()
    dev.model.status = status
    start(dev)
    assert dev.model.boots == 1
    assert "was interrupted" in dev.said[0]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"cpus": 1}'])
def test_a_layout_that_cant_be_read(make: Make, text: str | None) -> None:
    dev = make()
    dev.suspend()
    (dev.folder / SUSPENDED_LAYOUT).unlink()
    if text is not None:
        (dev.folder / SUSPENDED_LAYOUT).write_text(text)
    with pytest.raises(DriverFailed, match="can't be read") as caught:
        dev.start()
    assert "machine kill dev" in caught.value.hint
    assert dev.state() is State.SAVED
    dev.kill()
    assert names(dev.folder) == set()


def test_the_layout_names_the_image_that_runs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"node-name": "data"}, {"node-name": "root", "file": "/cache/digest/image"}]
    monkeypatch.setattr(Model, "_query_named_block_nodes", lambda self, flat: nodes, raising=False)
    dev = make()
    dev.suspend()
    layout = json.loads((dev.folder / SUSPENDED_LAYOUT).read_text())
    assert layout["image"] == "digest"
    monkeypatch.undo()
    assert Layout.parse(layout).apply(dev.vm).machine.image == "digest"

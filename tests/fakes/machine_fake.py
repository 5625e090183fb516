"""A driver of somebody else, as a wheel would bring it: its virtual machines are files of the folder
`fake` in the store.

It is found through the dist-info folder beside it, by anyone who has this folder on sys.path. A process that is started
with $FAKE_ANSWERS takes the fake's word for Docker and SSH: nothing answers there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from machine.driver import Driver, Export, Reach, Snapshot, State
from machine.errors import CheckFailed, DriverFailed
from machine.spec import Machine

ANSWERS = "FAKE_ANSWERS"


@dataclass(frozen=True)
class Options:
    slow: int = field(default=0, metadata={"help": "Seconds that create takes."})
    fails: str = field(default="", metadata={"help": "The step that fails.", "envvar": "FAKE_FAILS"})
    bold: bool = field(default=False, metadata={"help": "A switch."})
    word: tuple[str, ...] = field(default=(), metadata={"help": "A list.", "flag": "--fake-words"})


class Fake(Driver):
    name: ClassVar[str] = "fake"
    parts: ClassVar[frozenset[str]] = frozenset({"disk.qcow2"})
    Options: ClassVar[type] = Options

    @property
    def vm(self) -> Path:
        folder = self.folder.store / "fake"
        folder.mkdir(exist_ok=True)
        return folder / self.folder.name

    def check(self) -> list[str]:
        self._maybe_fail("check", CheckFailed)
        self._maybe_fail("check-otherwise")
        return ["a note of the fake"]

    def create(self) -> None:
        self.vm.write_text(State.STOPPED)
        time.sleep(int(str(self.machine.options.get("slow", 0))))
        self._maybe_fail("create")

    def start(self) -> bool:
        self._maybe_fail("start")
        self._switch(State.RUNNING)
        return False

    def stop(self) -> None:
        if self.machine.options.get("fails") != "stop":
            self._switch(State.STOPPED)

    def kill(self) -> None:
        self._switch(State.STOPPED)

    def remove(self) -> None:
        self._maybe_fail("remove")
        self.vm.unlink(missing_ok=True)

    def resize(self, wanted: Machine) -> list[str]:
        """Memory and disk change at once, processors when the machine doesn't run."""
        self._maybe_fail("resize")
        return ["cpus"] if wanted.cpus != self.machine.cpus and self.state() is State.RUNNING else []

    @contextlib.contextmanager
    def export(self) -> Iterator[Export]:
        disk = self.folder / "disk.qcow2"
        disk.touch()
        yield Export({disk.name: disk}, ("a note of what stays",))

    def reaches(self) -> list[Reach]:
        without = {"bold": False}
        drop = Reach("the bold switch", lambda asked: replace(asked, options=asked.options | without))
        return [drop] if self.machine.options.get("bold") else []

    def accept(self) -> Machine:
        if not (self.folder / "disk.qcow2").exists():
            raise DriverFailed("there is no disk in that file")
        return replace(self.machine, disk_mib=(self.folder / "disk.qcow2").stat().st_size >> 10)

    def suspend(self) -> None:
        self._maybe_fail("suspend")
        self._switch(State.SAVED)

    def snapshot(self, name: str) -> None:
        if any(one.name == name for one in self.snapshots()):
            raise DriverFailed("there is one of that name")
        self._keep([*self.snapshots(), Snapshot(name, "2024-01-01T00:00:00+00:00", self.state() is State.RUNNING)])

    def snapshots(self) -> list[Snapshot]:
        try:
            return [Snapshot(**one) for one in json.loads((self.folder / "snapshots").read_text())]
        except FileNotFoundError:
            return []

    def restore(self, name: str) -> None:
        self._switch(State.RUNNING if self._kept(name).running else State.STOPPED)

    def forget(self, name: str) -> None:
        gone = self._kept(name)
        self._keep([one for one in self.snapshots() if one != gone])

    def set_autostart(self, on: bool) -> None:
        (self.folder / "autostart").write_text("yes" if on else "")

    def autostart(self) -> bool:
        return (self.folder / "autostart").exists() and bool((self.folder / "autostart").read_text())

    def _kept(self, name: str) -> Snapshot:
        for one in self.snapshots():
            if one.name == name:
                return one
        raise DriverFailed("there is none of that name")

    def _keep(self, snapshots: list[Snapshot]) -> None:
        (self.folder / "snapshots").write_text(json.dumps([asdict(one) for one in snapshots]))

    def state(self) -> State:
        try:
            return State(self.vm.read_text())
        except FileNotFoundError:
            return State.STOPPED

    def _switch(self, state: State) -> None:
        if not self.vm.exists():
            raise DriverFailed("there is no such virtual machine")
        self.vm.write_text(state)

    def _maybe_fail(self, step: str, kind: type[CheckFailed | DriverFailed] = DriverFailed) -> None:
        if self.machine.options.get("fails") == step:
            raise kind(f"the fake fails at {step}", hint="machine create --driver qemu", details="one\ntwo")


def pretend(folder: Any) -> bool:
    """Whether Docker and SSH of a machine may be taken to answer: its virtual machine runs."""
    from machine import run, store

    machine = store.read(folder)
    return machine.options.get("fails") != "boot" and Fake(machine, folder, run.run).state() is State.RUNNING


if os.environ.get(ANSWERS):
    from machine import ssh
    from machine.docker import api

    setattr(api.Client, "ping", lambda client: pretend(client.folder))  # noqa: B010
    ssh.ready = lambda folder, *_, **__: pretend(folder)

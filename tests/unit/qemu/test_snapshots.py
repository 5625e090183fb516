"""Snapshots: of a stopped machine by a real qemu-img, of a running one through jobs of a fake monitor."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_fixtures import add_image
from fake_qemu import Recorder, guest, process
from fake_qmp import HANG_UP, agent, monitor
from machine.drivers.qemu import Qemu, snapshots
from machine.drivers.qemu.argv import DISK, MONITOR, SUSPENDED, SUSPENDED_LAYOUT
from machine.drivers.qemu.qmp import Qmp

from machine import capabilities as core
from machine import run
from machine.driver import Snapshots, State
from machine.errors import DriverFailed, NoSuchImage, Usage, WaitTimeout
from machine.folders.handles import Handles
from machine.folders.mount_spec import DATABASE
from machine.paths import MachineFolder
from machine.progress import Silent

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")
LAYOUT = {"base_mib": 512, "more_mib": 0, "reporting": True, "cpus": 1, "image": ""}


@pytest.fixture
def made(qemu: Qemu, recorder: Recorder) -> Qemu:
    """A stopped machine with a disk."""
    recorder.images = True
    qemu.create()
    return qemu


class Jobs:
    """What a monitor does with jobs. ends: the fields with which one concludes; None: it never does."""

    def __init__(self) -> None:
        self.ends: dict[str, Any] | None = {}
        self.started: list[dict[str, Any]] = []
        self.dismissed: list[str] = []
        self.looks = 0

    def answers(self) -> dict[str, Any]:
        started = dict.fromkeys(("snapshot-save", "snapshot-load", "snapshot-delete"), self._start)
        return {
            **started,
            "query-jobs": self._query,
            "job-dismiss": lambda message: self.dismissed.append(message["arguments"]["id"]) or {},
            "query-status": {"status": "running"},
            "query-cpus-fast": [{"return": [{}]}],
            "query-memory-size-summary": {"base-memory": 512 << 20},
            "qom-get": lambda message: message["arguments"]["property"] == "free-page-reporting",
            "quit": [{"return": {}}, HANG_UP],
        }

    def _start(self, message: dict[str, Any]) -> dict[str, Any]:
        self.started.append({"command": message["execute"], **message["arguments"]})
        return {}

    def _query(self, _: dict[str, Any]) -> list[Any]:
        self.looks += 1
        over = self.ends is not None and self.looks % 2 == 0
        status = {"status": "concluded", **(self.ends or {})} if over else {"status": "running"}
        return [{"return": [{"id": "another", "status": "running"}, {"id": self.started[-1]["job-id"], **status}]}]


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def held(disk: Path, number: int) -> bool:
    """Whether the disk's first block holds that number."""
    found = run.run(["qemu-io", "-f", "qcow2", "-c", f"read -P {number} 0 64k", disk], check=False)
    return "failed" not in found.stdout


def write(disk: Path, number: int) -> None:
    run.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {number} 0 64k", disk])


def names(made: Qemu) -> list[str]:
    return [one.name for one in made.snapshots()]


def test_it_takes_snapshots(qemu: Qemu) -> None:
    assert isinstance(qemu, Snapshots)


# Of a stopped machine.


@pytest.mark.skipif(not shutil.which("qemu-io"), reason="needs qemu-io")
def test_a_stopped_machine_goes_back(made: Qemu, folder: MachineFolder) -> None:
    assert made.snapshots() == []
    for number, name in enumerate(("b", "a")):
        write(folder / DISK, number + 1)
        made.snapshot(name)
    write(folder / DISK, 3)
    assert names(made) == ["b", "a"]
    assert [one.running for one in made.snapshots()] == [False, False]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made.snapshots()[0].created)
    made.restore("b")
    assert held(folder / DISK, 1)
    made.restore("a")
    assert held(folder / DISK, 2)
    made.forget("b")
    assert names(made) == ["a"]
    assert held(folder / DISK, 2)


def test_names_that_are_taken_or_unknown(made: Qemu) -> None:
    made.snapshot("one")
    with pytest.raises(DriverFailed, match='the snapshot "one" already exists') as caught:
        made.snapshot("one")
    assert caught.value.hint == "machine snapshot ls dev"
    for verb in (made.restore, made.forget):
        with pytest.raises(DriverFailed, match='there is no snapshot "two"'):
            verb("two")
    assert names(made) == ["one"]


@pytest.mark.parametrize("name", ["1", "007", "-a", "a/b", "", "x" * 64])
def test_names_that_mean_something_else_to_qemu(store: Path, name: str) -> None:
    with pytest.raises(Usage, match="invalid name"):
        core.take("dev", name, Silent())


def test_a_suspended_machine_keeps_its_memory_for_its_start(made: Qemu, folder: MachineFolder) -> None:
    (folder / SUSPENDED).write_text("state")
    with pytest.raises(DriverFailed, match="can't take a snapshot of a suspended machine") as caught:
        made.snapshot("one")
    assert caught.value.hint == "machine start dev"
    assert names(made) == []


def test_going_back_drops_what_was_suspended(made: Qemu, folder: MachineFolder) -> None:
    made.snapshot("one")
    (folder / SUSPENDED).write_text("state")
    (folder / SUSPENDED_LAYOUT).write_text("{}")
    with pytest.raises(DriverFailed):
        made.restore("two")
    assert made.state() is State.SAVED
    made.restore("one")
    assert made.state() is State.STOPPED


# Of a running machine.


def test_a_running_machine_is_kept_with_its_memory_and_layout(
    made: Qemu, folder: MachineFolder, jobs: Jobs, running: object
) -> None:
    with monitor(folder / "qmp.sock", jobs.answers()):
        made.snapshot("one")
    (job,) = jobs.started
    assert job.pop("job-id") == jobs.dismissed[0]
    assert job == {"command": "snapshot-save", "tag": "one", "vmstate": "data", "devices": ["data"]}
    assert json.loads((folder / snapshots.LAYOUTS).read_text()) == {"one": LAYOUT}


@pytest.mark.parametrize("status", ["prelaunch", "inmigrate", "shutdown", "internal-error"])
def test_one_that_neither_runs_nor_is_off_isnt_kept(
    made: Qemu, folder: MachineFolder, jobs: Jobs, running: object, status: str
) -> None:
    answers = jobs.answers() | {"query-status": {"status": status}}
    with (
        monitor(folder / "qmp.sock", answers),
        pytest.raises(DriverFailed, match=r'the machine "dev" is (starting|stopping|error)'),
    ):
        made.snapshot("one")
    assert jobs.started == []


def test_a_job_that_fails_tells_qemus_reason(made: Qemu, folder: MachineFolder, jobs: Jobs, running: object) -> None:
    jobs.ends = {"error": "no space left"}
    with (
        monitor(folder / "qmp.sock", jobs.answers()),
        pytest.raises(DriverFailed, match="QEMU's snapshot-save failed: no space left"),
    ):
        made.snapshot("one")
    assert len(jobs.dismissed) == 1


def test_qemu_may_be_silent_while_it_writes_a_memory(tmp_path: Path, jobs: Jobs) -> None:
    """It was given up after ten seconds, which a memory of some GiB takes on a slow disk."""
    answers = jobs.answers()
    query = answers["query-jobs"]
    silence = 1.0

    def late(message: dict[str, Any]) -> Any:
        time.sleep(silence)
        return query(message)

    with monitor(tmp_path / MONITOR, {**answers, "query-jobs": late}), Qmp(tmp_path / MONITOR) as connection:
        connection.timeout = silence / 10
        connection.socket.settimeout(connection.timeout)
        snapshots._job(connection, "snapshot-save", tag="one")
        assert jobs.dismissed
        assert connection.socket.gettimeout() == connection.timeout == silence / 10


def test_a_job_without_end(
    made: Qemu, folder: MachineFolder, jobs: Jobs, running: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.ends = None
    monkeypatch.setattr(snapshots, "DEADLINE", 0.05)
    late = pytest.raises(WaitTimeout, match="QEMU's snapshot-save")
    with monitor(folder / "qmp.sock", jobs.answers()), late:
        made.snapshot("one")
    assert jobs.dismissed == []


def test_one_of_a_running_machine_is_removed_by_its_qemu(made: Qemu, folder: MachineFolder, jobs: Jobs) -> None:
    made.snapshot("one")
    (folder / snapshots.LAYOUTS).write_text(json.dumps({"one": LAYOUT, "two": LAYOUT}))
    with process(folder), monitor(folder / "qmp.sock", jobs.answers()):
        made.forget("one")
    (job,) = jobs.started
    assert {key: job[key] for key in ("command", "tag", "devices")} == {
        "command": "snapshot-delete",
        "tag": "one",
        "devices": ["data"],
    }
    assert json.loads((folder / snapshots.LAYOUTS).read_text()) == {"two": LAYOUT}


@pytest.fixture
def with_memory(made: Qemu, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> Qemu:
    """A machine with a snapshot "one" that holds memory; qemu-img alone can't make such."""
    made.snapshot("one")
    all_of = snapshots.all_of
    monkeypatch.setattr(
        snapshots,
        "all_of",
        lambda vm: [snapshots.Snapshot(one.name, one.created, running=True) for one in all_of(vm)],
    )
    (folder / snapshots.LAYOUTS).write_text(json.dumps({"one": {**LAYOUT, "cpus": 3, "reporting": False}}))
    return made


@pytest.fixture
def qemu_again(folder: MachineFolder, recorder: Recorder, jobs: Jobs) -> Iterator[contextlib.ExitStack]:
    """A QEMU answers once one was started."""
    with contextlib.ExitStack() as stack:

        def launched(words: list[str]) -> None:
            stack.enter_context(process(folder))
            stack.enter_context(monitor(folder / "qmp.sock", jobs.answers()))
            stack.enter_context(agent(folder / "agent.sock", guest))

        recorder.launched = launched
        yield stack


def test_going_back_to_a_running_machine(
    with_memory: Qemu,
    folder: MachineFolder,
    jobs: Jobs,
    recorder: Recorder,
    running: subprocess.Popen[bytes],
    qemu_again: object,
    detached: list[list[str]],
) -> None:
    with_memory.restore("one")
    assert running.wait(timeout=60) == -9
    (words,) = recorder.launches
    assert words[-1] == "-S"
    assert words[words.index("-smp") + 1] == "3"
    assert "virtio-balloon-pci,id=balloon,free-page-reporting=off" in words
    (job,) = jobs.started
    assert (job["command"], job["tag"]) == ("snapshot-load", "one")
    assert with_memory.state() is State.RUNNING
    assert len(detached) == 1


def test_answers_for_the_guests_shared_folders_are_of_another_time(
    with_memory: Qemu, folder: MachineFolder, qemu_again: object, detached: list[list[str]]
) -> None:
    with_memory.machine = dataclasses.replace(with_memory.machine, mounts=("/home/ann",))
    before = Handles(folder / DATABASE)
    before.note_answer(b"call", b"reply")
    before.close()
    with_memory.restore("one")
    after = Handles(folder / DATABASE)
    assert after.answer(b"call") is None
    after.close()


def test_a_memory_that_cant_be_loaded_ends_the_new_qemu(
    with_memory: Qemu, folder: MachineFolder, jobs: Jobs, qemu_again: object, detached: list[list[str]]
) -> None:
    jobs.ends = {"error": "another layout"}
    with pytest.raises(DriverFailed, match="another layout"):
        with_memory.restore("one")
    assert with_memory.state() is State.STOPPED
    assert detached == []


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_a_layout_that_isnt_known_ends_nothing(
    with_memory: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes], text: str
) -> None:
    (folder / snapshots.LAYOUTS).write_text(text)
    with pytest.raises(DriverFailed, match="the hardware of the snapshot"):
        with_memory.restore("one")
    assert running.poll() is None


def test_going_back_takes_the_image_of_that_time(
    with_memory: Qemu,
    folder: MachineFolder,
    tmp_path: Path,
    recorder: Recorder,
    qemu_again: object,
    detached: list[list[str]],
) -> None:
    """The machine was upgraded since: the guest that comes back has files of its old image open."""
    before = add_image(tmp_path, "machineos", b"before").digest
    (folder / snapshots.LAYOUTS).write_text(json.dumps({"one": {**LAYOUT, "image": before}}))
    with_memory.restore("one")
    (words,) = recorder.launches
    assert [word for word in words if f"{before}/image" in word]
    assert not [word for word in words if with_memory.machine.image in word]


def test_an_image_of_that_time_that_is_gone_ends_nothing(
    with_memory: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes]
) -> None:
    (folder / snapshots.LAYOUTS).write_text(json.dumps({"one": {**LAYOUT, "image": "0" * 64}}))
    with pytest.raises(NoSuchImage, match="000000000000"):
        with_memory.restore("one")
    assert running.poll() is None


def test_removing_a_snapshot_of_a_suspended_machine_keeps_its_memory(made: Qemu, folder: MachineFolder) -> None:
    made.snapshot("one")
    (folder / SUSPENDED).write_text("state")
    os.utime(folder / SUSPENDED, (1, 1))
    os.utime(folder / DISK, (1, 1))
    made.forget("one")
    assert (folder / DISK).stat().st_mtime > 1
    assert (folder / SUSPENDED).stat().st_mtime_ns == (folder / DISK).stat().st_mtime_ns

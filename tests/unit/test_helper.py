import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import helper
from machine.docker import liveness
from machine.docker.ports import NOTE
from machine.paths import MachineFolder

HOLDS = """
import sys
from pathlib import Path
from machine import helper
from machine.paths import MachineFolder
with helper.alone(MachineFolder(Path(sys.argv[1]))) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    folder = MachineFolder(tmp_path / "machines" / "dev")
    folder.path.mkdir(parents=True)
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    started: list[list[str]] = []
    monkeypatch.setattr(helper, "detach", lambda argv, output, cwd: started.append([str(word) for word in argv]))
    monkeypatch.setattr(helper, "YOUNG", -1.0)
    return started


@pytest.fixture
def hold(folder: MachineFolder) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HOLDS, str(folder.path)]
        begun.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate(timeout=60)


def test_a_helper_stands_in_the_store(folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its command was typed it would keep the folder from being removed (Windows) or unmounted."""
    places: list[Path] = []
    monkeypatch.setattr(helper, "detach", lambda argv, output, cwd: places.append(cwd))
    helper.begin(folder, "machine.drivers.qemu")
    assert places == [folder.store]


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_helper_that_was_killed_is_started_by_whoever_asks_next(
    folder: MachineFolder, started: list[list[str]], hold: Callable[[], subprocess.Popen[str]]
) -> None:
    helper.ensure(folder, "the.module")
    assert started == [[sys.executable, "-m", "the.module", str(folder.path)]]
    process = hold()
    assert says(process) == "True"
    helper.ensure(folder, "the.module")
    assert len(started) == 1
    process.kill()
    process.wait(timeout=60)
    helper.ensure(folder, "the.module")
    assert len(started) == 2


def test_one_that_was_only_just_started_isnt_started_twice(
    folder: MachineFolder, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "YOUNG", 60.0)
    helper.begin(folder, "m")
    for _ in range(3):
        helper.ensure(folder, "m")
    assert len(started) == 1
    os.utime(folder / helper.LOCK, (0, 0))
    helper.ensure(folder, "m")
    assert len(started) == 2


def test_the_next_helper_takes_over_when_the_old_one_ends(
    folder: MachineFolder, hold: Callable[[], subprocess.Popen[str]]
) -> None:
    old = hold()
    assert says(old) == "True"
    new = hold()
    old.kill()
    assert says(new) == "True"


def test_a_second_one_gives_up(
    folder: MachineFolder, hold: Callable[[], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says(hold()) == "True"
    monkeypatch.setattr(helper, "HANDOVER", 0.05)
    with helper.alone(folder) as held:
        assert not held


def test_a_second_one_ends_when_the_machine_is_removed(
    folder: MachineFolder, hold: Callable[[], subprocess.Popen[str]]
) -> None:
    assert says(hold()) == "True"
    second = hold()
    folder.path.rename(folder.path.with_name("trash"))
    assert says(second) == "False"


def test_a_folder_stays_until_it_is_removed_or_made_anew(folder: MachineFolder) -> None:
    stays = helper.staying(folder)
    assert stays()
    folder.path.rename(folder.path.with_name("trash"))
    assert not stays()
    assert not helper.staying(folder)()
    folder.path.mkdir()
    assert not stays()


def test_what_an_earlier_helper_noted_is_forgotten(folder: MachineFolder, started: list[list[str]]) -> None:
    (folder / NOTE).write_text("[]")
    liveness.note(folder, "28.5.1")
    helper.begin(folder, "m")
    assert not (folder / NOTE).exists()
    assert liveness.version(folder) == ""
    assert (folder / helper.LOG).exists()


def test_nothing_that_fails_here_keeps_the_state_from_being_told(
    folder: MachineFolder, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_is_ours", lambda folder: False)
    helper.ensure(folder, "m")  # a machine of another user's
    monkeypatch.undo()
    helper.ensure(MachineFolder(folder.path / "gone"), "m")
    (folder / helper.LOCK).mkdir()
    helper.ensure(folder, "m")
    assert started == []


def test_a_full_disk_keeps_no_machine_from_starting(
    folder: MachineFolder, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    (folder / helper.LOG).mkdir()  # nor can the log be opened
    helper.begin(folder, "m")
    assert len(started) == 1


def test_files_that_cant_be_locked_keep_no_helper_from_its_work(
    folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(helper, "try_lock", no_locks)
    with helper.alone(folder) as held:
        assert held


def test_the_lock_goes_with_the_folder(folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows it lies beside it."""
    monkeypatch.setattr(sys, "platform", "win32")
    lock = folder.store / "helper-dev.lock"
    lock.touch()
    helper.forget(folder)
    assert lock.exists()
    folder.path.rmdir()
    helper.forget(folder)
    assert not lock.exists()

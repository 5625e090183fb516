import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import psutil
import pytest
import spellings
from machine.drivers.qemu import process
from machine.drivers.qemu.process import Process

from machine.errors import DriverFailed

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]
# As QEMU does: its pidfile stays open.
HOLD = [sys.executable, "-c", "import sys, time; file = open(sys.argv[-1]); print(flush=True); time.sleep(600)"]
UUID, OTHER = "5a1f2c34-a6b0-48f1-81a7-1d215a60c752", "6b2f2c34-a6b0-48f1-81a7-1d215a60c752"


class Launch(Protocol):
    """Start a program with these words."""

    def __call__(self, *words: str | Path, program: list[str] = ...) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def pidfile(tmp_path: Path) -> Path:
    return tmp_path / "qemu.pid"


@pytest.fixture
def launch() -> Iterator[Launch]:
    started: list[subprocess.Popen[bytes]] = []

    def launch(*words: str | Path, program: list[str] = SLEEP) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([*program, *words], stdout=subprocess.PIPE))
        assert started[-1].stdout
        started[-1].stdout.readline()
        return started[-1]

    yield launch
    for one in started:
        one.kill()
        with one:
            one.wait(timeout=60)


def test_the_process_of_the_pidfile_is_found(pidfile: Path, launch: Launch) -> None:
    qemu = launch("-pidfile", pidfile)
    pidfile.write_text(f"{qemu.pid}\n", encoding="utf-8")
    found = Process(pidfile).find()
    assert found is not None
    assert found.pid == qemu.pid


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "999999999", "99999999999999999999", "1 2", "\0"])
def test_a_pidfile_that_names_no_process(pidfile: Path, text: str) -> None:
    pidfile.write_text(text, encoding="utf-8")
    assert Process(pidfile).find() is None


def test_no_pidfile(pidfile: Path) -> None:
    assert Process(pidfile).find() is None
    Process(pidfile).kill()


def test_a_process_that_got_the_number_later_is_another(pidfile: Path, launch: Launch) -> None:
    other = launch("-something", "else")
    pidfile.write_text(str(other.pid), encoding="utf-8")
    assert Process(pidfile).find() is None
    pidfile.write_text(str(os.getpid()), encoding="utf-8")
    assert Process(pidfile).find() is None
    # As after a reboot of the host: the machine of the same name runs, and the pidfile is from before.
    qemu = launch("-pidfile", pidfile)
    pidfile.write_text(str(qemu.pid), encoding="utf-8")
    hour_ago = time.time() - 3600
    os.utime(pidfile, (hour_ago, hour_ago))
    assert Process(pidfile).find() is None


def test_a_process_that_has_ended_isnt_found(pidfile: Path, launch: Launch) -> None:
    qemu = launch("-pidfile", pidfile)
    pidfile.write_text(str(qemu.pid), encoding="utf-8")
    qemu.kill()
    deadline = time.monotonic() + 60
    # Not waited for: it stays as a zombie.
    while psutil.Process(qemu.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert Process(pidfile).find() is None


def test_kill_ends_every_process_of_the_machine_and_no_other(pidfile: Path, launch: Launch) -> None:
    qemus = [launch("-pidfile", pidfile) for _ in range(2)]
    reader, neighbour = launch(pidfile), launch("-pidfile", pidfile.with_name("other.pid"))
    pidfile.write_text(str(qemus[0].pid), encoding="utf-8")
    Process(pidfile).kill()
    assert not pidfile.exists()
    assert [qemu.wait(timeout=60) for qemu in qemus] == [-9, -9]
    assert (reader.poll(), neighbour.poll()) == (None, None)
    assert list(Process(pidfile).find_all()) == []
    Process(pidfile).kill()


def test_a_process_that_doesnt_end_is_reported(pidfile: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = launch("-pidfile", pidfile)
    monkeypatch.setattr(psutil.Process, "send_signal", lambda *_: None)
    with pytest.raises(DriverFailed, match=f"process {qemu.pid}.* doesn't end"):
        Process(pidfile).kill(timeout=0.05)


def test_a_process_that_ends_by_itself_meanwhile(
    pidfile: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = launch("-pidfile", pidfile)
    found = list(Process(pidfile).find_all())
    qemu.kill()
    qemu.wait(timeout=60)
    monkeypatch.setattr(Process, "find_all", lambda _: iter(found))
    Process(pidfile).kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not process.alive(found[0])


def copied(pidfile: Path, pid: int, name: str) -> Path:
    """A copy of the machine's folder: `cp -a` keeps the pidfile's number and time."""
    pidfile.write_text(str(pid), encoding="utf-8")
    copy = pidfile.parent / name / pidfile.name
    copy.parent.mkdir()
    shutil.copy2(pidfile, copy)
    return copy


@pytest.mark.parametrize("spelling", spellings.ALL)
@pytest.mark.parametrize("uuid", [UUID, ""])
def test_the_path_to_the_pidfile_may_be_spelled_otherwise(
    tmp_path: Path, launch: Launch, spelling: spellings.Spell, uuid: str
) -> None:
    """uuid is "" where machine.json can't be read."""
    (tmp_path / "store").mkdir()
    pidfile = tmp_path / "store" / "qemu.pid"
    qemu = launch("-uuid", UUID, "-pidfile", f"{spelling(tmp_path / 'store')}/qemu.pid")
    pidfile.write_text(str(qemu.pid))
    found = Process(pidfile, uuid).find()
    assert found is not None
    assert found.pid == qemu.pid
    pidfile.unlink()
    assert [one.pid for one in Process(pidfile, uuid).find_all()] == [qemu.pid]
    Process(pidfile, uuid).kill()
    assert qemu.wait(timeout=60) == -9


def test_another_machine_of_that_name_isnt_it(pidfile: Path, launch: Launch) -> None:
    """Its folder was removed by hand, and a new one made."""
    qemu = launch("-uuid", OTHER, "-pidfile", pidfile)
    pidfile.write_text(str(qemu.pid), encoding="utf-8")
    assert Process(pidfile, UUID).find() is None
    Process(pidfile, UUID).refuse_second()
    Process(pidfile, UUID).kill()
    assert qemu.poll() is None


def test_a_store_that_was_moved(tmp_path: Path, launch: Launch) -> None:
    pidfile = tmp_path / "new" / "qemu.pid"
    pidfile.parent.mkdir()
    pidfile.touch()
    qemu = launch("-uuid", UUID, "-pidfile", tmp_path / "old" / "qemu.pid", pidfile, program=HOLD)
    pidfile.write_text(str(qemu.pid))
    assert Process(pidfile, OTHER).find() is None
    found = Process(pidfile, UUID).find()
    assert found is not None
    assert found.pid == qemu.pid
    Process(pidfile, UUID).kill()
    assert qemu.wait(timeout=60) == -9


def test_a_copy_that_was_put_where_the_folder_was(tmp_path: Path, launch: Launch) -> None:
    """A backup is brought back while the machine still runs from the folder that was moved aside."""
    pidfile, aside = tmp_path / "dev" / "qemu.pid", tmp_path / "aside" / "qemu.pid"
    pidfile.parent.mkdir()
    pidfile.touch()
    qemu = launch("-uuid", UUID, "-pidfile", pidfile, program=HOLD)
    pidfile.write_text(str(qemu.pid))
    pidfile.parent.rename(aside.parent)
    shutil.copytree(aside.parent, pidfile.parent)
    assert Process(pidfile, UUID).find() is None
    with pytest.raises(DriverFailed, match=f"process {qemu.pid} from {aside.parent}, and this folder is a copy"):
        Process(pidfile, UUID).refuse_second()
    Process(pidfile, UUID).kill()
    assert qemu.poll() is None
    assert Process(aside, UUID).find()


def test_a_copy_of_the_folder_is_another(pidfile: Path, launch: Launch) -> None:
    qemu = launch("-uuid", UUID, "-pidfile", pidfile)
    copy = Process(copied(pidfile, qemu.pid, "copy"), UUID)
    assert copy.find() is None
    with pytest.raises(DriverFailed, match=f"process {qemu.pid} from {pidfile.parent}, and this folder is a copy"):
        copy.refuse_second()
    copy.kill()
    assert qemu.poll() is None
    Process(pidfile, UUID).kill()
    assert qemu.wait(timeout=60) == -9


def test_what_cant_be_told_is_refused(pidfile: Path, launch: Launch) -> None:
    """The folder and its copy both name the process, and it came from a third, which is gone."""
    qemu = launch("-uuid", UUID, "-pidfile", pidfile.parent / "gone" / "qemu.pid")
    copy = copied(pidfile, qemu.pid, "copy")
    for one in (Process(pidfile, UUID), Process(copy, UUID)):
        for ask in (one.find, one.kill, one.refuse_second):
            with pytest.raises(DriverFailed, match=f"process {qemu.pid} may be this machine's") as caught:
                ask()
            assert f"kill {qemu.pid}" in caught.value.hint
    assert qemu.poll() is None
    assert pidfile.exists()


def test_one_that_cant_be_seen_isnt_taken_for_ended(
    pidfile: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a container, or /proc hides it. Only the lock of its pidfile shows that it runs."""
    lock = (
        "import fcntl, sys, time; file = open(sys.argv[-1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True)"
    )
    pidfile.touch()
    qemu = launch(pidfile, program=[sys.executable, "-c", f"{lock}; time.sleep(600)"])
    pidfile.write_text("7\n", encoding="utf-8")
    monkeypatch.setattr(Process, "leaving", 0.05)
    for ask in (Process(pidfile, UUID).find, Process(pidfile, UUID).kill):
        with pytest.raises(DriverFailed, match=f"it locks {pidfile}"):
            ask()
    assert pidfile.exists()
    monkeypatch.setattr(Process, "leaving", 120.0)
    threading.Timer(0.1, qemu.kill).start()
    assert Process(pidfile, UUID).find() is None, "it was just ending"
    qemu.wait(timeout=60)
    assert Process(pidfile, UUID).find() is None


def test_one_that_no_pidfile_names_is_not_started_again(pidfile: Path, launch: Launch) -> None:
    Process(pidfile, UUID).refuse_second()
    qemu = launch("-uuid", UUID, "-pidfile", pidfile)
    with pytest.raises(DriverFailed, match=f"QEMU runs as process {qemu.pid}, which {pidfile} doesn't name"):
        Process(pidfile, UUID).refuse_second()


def test_a_process_of_another_user_isnt_guessed_at(
    pidfile: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS shows no command line of another user's; the number may have been given to anybody since."""
    qemu = launch("-pidfile", pidfile)
    pidfile.write_text(str(qemu.pid), encoding="utf-8")

    def refuse(process: psutil.Process) -> list[str]:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    with pytest.raises(DriverFailed, match="belongs to another user"):
        Process(pidfile).find()
    os.utime(pidfile, (1, 1))
    assert Process(pidfile).find() is None
    Process(pidfile).refuse_second()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such pages")
def test_what_is_started_afterwards_gets_no_huge_pages() -> None:
    # PR_GET_THP_DISABLE is 42; in a process of its own, because it is kept for good.
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))"
    told = "import subprocess, sys; from machine.drivers.qemu.process import use_small_pages; use_small_pages()"
    code = f"{told}; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"

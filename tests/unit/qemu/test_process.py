import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from machine.drivers.qemu import process
from machine.drivers.qemu.process import Process

from machine.errors import DriverFailed

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]


@pytest.fixture
def pidfile(tmp_path: Path) -> Path:
    return tmp_path / "qemu.pid"


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def launch(*words: str | Path) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([*SLEEP, *words], stdout=subprocess.PIPE))
        assert started[-1].stdout
        started[-1].stdout.readline()
        return started[-1]

    yield launch
    for one in started:
        one.kill()
        with one:
            one.wait(timeout=10)


def test_the_process_of_the_pidfile_is_found(pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]]) -> None:
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


def test_a_process_that_got_the_number_later_is_another(
    pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]]
) -> None:
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


def test_a_process_that_has_ended_isnt_found(pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]]) -> None:
    qemu = launch("-pidfile", pidfile)
    pidfile.write_text(str(qemu.pid), encoding="utf-8")
    qemu.kill()
    deadline = time.monotonic() + 10
    # Not waited for: it stays as a zombie.
    while psutil.Process(qemu.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert Process(pidfile).find() is None


def test_kill_ends_every_process_of_the_machine_and_no_other(
    pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]]
) -> None:
    qemus = [launch("-pidfile", pidfile) for _ in range(2)]
    reader, neighbour = launch(pidfile), launch("-pidfile", pidfile.with_name("other.pid"))
    pidfile.write_text(str(qemus[0].pid), encoding="utf-8")
    Process(pidfile).kill()
    assert not pidfile.exists()
    assert [qemu.wait(timeout=10) for qemu in qemus] == [-9, -9]
    assert (reader.poll(), neighbour.poll()) == (None, None)
    assert list(Process(pidfile).find_all()) == []
    Process(pidfile).kill()


def test_a_process_that_doesnt_end_is_reported(
    pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = launch("-pidfile", pidfile)
    monkeypatch.setattr(psutil.Process, "send_signal", lambda *_: None)
    with pytest.raises(DriverFailed, match=f"process {qemu.pid}.* doesn't end"):
        Process(pidfile).kill(timeout=0.05)


def test_a_process_that_ends_by_itself_meanwhile(
    pidfile: Path, launch: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = launch("-pidfile", pidfile)
    found = list(Process(pidfile).find_all())
    qemu.kill()
    qemu.wait(timeout=10)
    monkeypatch.setattr(Process, "find_all", lambda _: iter(found))
    Process(pidfile).kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not process.alive(found[0])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such pages")
def test_what_is_started_afterwards_gets_no_huge_pages() -> None:
    # PR_GET_THP_DISABLE is 42; in a process of its own, because it is kept for good.
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))"
    told = "import subprocess, sys; from machine.drivers.qemu.process import use_small_pages; use_small_pages()"
    code = f"{told}; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"

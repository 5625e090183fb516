"""The QEMU process of a machine: found again by its pidfile, and never mistaken for another."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from machine.errors import DriverFailed
from machine.paths import same

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

# A process that was there before QEMU wrote its pidfile may be it; one that was started later got a recycled number.
# The clock of process start times has a resolution of 10 ms, and boot time is rounded to a second.
TOLERANCE = 2.0

# prctl(2); it is kept over fork and exec.
PR_SET_THP_DISABLE = 41


class Owner(Enum):
    """Whose a process is. COPY: of the same machine in another folder. UNKNOWN: it has the UUID, but which folder?"""

    OURS = auto()
    COPY = auto()
    UNKNOWN = auto()
    ANOTHER = auto()


class Process:
    """The QEMU of one machine.

    It has the machine's UUID in its command line, and the pidfile that it wrote is ours: the same device and inode,
    however the path to it is spelled. The same UUID with another pidfile is that of a copy of the machine's folder.
    uuid: "" where it isn't known; then the pidfile alone counts. Raises DriverFailed where neither can be told.
    """

    # Seconds: one that ends gives its memory back first, has no command line any more, and still holds its files.
    leaving = 5.0

    def __init__(self, pidfile: Path, uuid: str = "") -> None:
        self.pidfile = pidfile
        self.uuid = uuid

    def find(self) -> psutil.Process | None:
        """The process that the pidfile names, None when it has ended. Raises OSError for another user's pidfile."""
        deadline = time.monotonic() + self.leaving
        while (process := self._named()) is None and _is_locked(self.pidfile):
            if time.monotonic() > deadline:
                raise DriverFailed(
                    f"QEMU runs, but its process can't be seen from here: it locks {self.pidfile}",
                    hint="it is another user's, or runs in a container: stop the machine from there",
                )
            time.sleep(0.02)
        return process

    def _named(self) -> psutil.Process | None:
        try:
            pid = int(self.pidfile.read_text(encoding="utf-8"))
            written = self.pidfile.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        import psutil  # 15 ms, and a stopped machine doesn't need it

        try:
            process = psutil.Process(pid)
            is_ours = process.create_time() <= written + TOLERANCE and self._is_ours(process)
        except psutil.AccessDenied as error:
            raise _unclear(pid, "it belongs to another user") from error
        except (psutil.Error, ValueError):  # no process has a number below zero
            return None
        return process if is_ours else None

    def find_all(self) -> Iterator[psutil.Process]:
        """Every process of the machine, with or without a pidfile: for clearing up after a crash."""
        return (process for process in _processes() if _readable(self._is_ours, process))

    def refuse_second(self) -> None:
        """Raise DriverFailed when a QEMU of this machine runs that `find` doesn't see."""
        for process in _processes():
            owner = _readable(self._owner, process)
            if owner is Owner.OURS:
                raise DriverFailed(
                    f"QEMU runs as process {process.pid}, which {self.pidfile} doesn't name",
                    hint=f"end it: kill {process.pid}",
                )
            if owner is Owner.COPY and (copy := _readable(_runs_as, process)):
                raise copy
            if owner is Owner.UNKNOWN:
                raise _unclear(process.pid, "it has the machine's UUID")

    def kill(self, *, timeout: float = 10) -> None:
        """End every process of the machine and wait until it is gone. timeout in seconds. Raises as `find` does."""
        import psutil

        processes = list(self.find_all())
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        deadline = time.monotonic() + timeout
        while any(alive(process) for process in processes):
            if time.monotonic() > deadline:
                raise DriverFailed(f"QEMU (process {processes[0].pid}) doesn't end", hint="ps -l")
            time.sleep(0.01)
        self.find()  # one that can't be seen lives on: its files mustn't be removed
        self.pidfile.unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        owner = self._owner(process)
        if owner is Owner.UNKNOWN:
            raise _unclear(process.pid, "it has the machine's UUID")
        return owner is Owner.OURS

    def _owner(self, process: psutil.Process) -> Owner:
        words = process.cmdline()
        written, uuid = _value(words, "-pidfile"), _value(words, "-uuid")
        if not written or (self.uuid and uuid and uuid != self.uuid) or not alive(process):
            return Owner.ANOTHER
        held = _held(process, Path(written).name)
        if same(held or Path(written), self.pidfile):
            return Owner.OURS
        if not self.uuid or uuid != self.uuid:
            return Owner.ANOTHER
        return Owner.COPY if held or _names(Path(written), process.pid) else Owner.UNKNOWN


def _processes() -> Iterator[psutil.Process]:
    import psutil

    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _readable(ask: Callable[[psutil.Process], T], process: psutil.Process) -> T | None:
    """None for a process that ends meanwhile, or that only another user may look at."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return ask(process)
    return None


def _value(words: list[str], option: str) -> str:
    return next((value for word, value in pairwise(words) if word == option), "")


def _held(process: psutil.Process, name: str) -> Path | None:
    """Where the pidfile is that a QEMU wrote: it keeps it open, and so leads to it also when the folder was moved.

    None where that can't be seen: it was removed, or the process is another user's.
    """
    import psutil

    with contextlib.suppress(psutil.AccessDenied):
        return next((path for file in process.open_files() if (path := Path(file.path)).name == name), None)
    return None


def _is_locked(pidfile: Path) -> bool:
    """Whether some process holds a lock on the file, as QEMU does on its pidfile as long as it runs."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with pidfile.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or a file system without locks
        return False
    return False


def _names(pidfile: Path, pid: int) -> bool:
    try:
        return int(pidfile.read_text(encoding="utf-8")) == pid
    except (OSError, ValueError):
        return False


def _runs_as(process: psutil.Process) -> DriverFailed:
    written = Path(_value(process.cmdline(), "-pidfile"))
    folder = (_held(process, written.name) or written).parent
    return DriverFailed(
        f"the machine runs as process {process.pid} from {folder}, and this folder is a copy of that one",
        hint=f"machine -s {shlex.quote(str(folder.parent.parent))} stop {folder.name}",
    )


def _unclear(pid: int, why: str) -> DriverFailed:
    return DriverFailed(
        f"process {pid} may be this machine's QEMU: {why}",
        hint=f"inspect it: ps -fp {pid}; if it is the machine's, end it: kill {pid}",
    )


def use_small_pages() -> None:
    """Have the processes that we start from now on use no huge pages, though they ask for them, as QEMU does.

    Under hardware acceleration huge pages make a guest faster. An emulated one gains nothing, and each that it touches
    takes 2 MiB of the host for the few KiB that it needs: a clone stood at 64 MiB more.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def alive(process: psutil.Process) -> bool:
    """A process that has ended, and only waits for its parent to notice, is dead."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

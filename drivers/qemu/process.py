"""The QEMU process of a machine: found again by its pidfile, and never mistaken for another."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from machine.errors import DriverFailed

if TYPE_CHECKING:
    import psutil

# A process that was there before QEMU wrote its pidfile may be it; one that was started later got a recycled number.
# The clock of process start times has a resolution of 10 ms, and boot time is rounded to a second.
TOLERANCE = 2.0

# prctl(2); it is kept over fork and exec.
PR_SET_THP_DISABLE = 41


class Process:
    """pidfile is the one that QEMU wrote; `-pidfile PATH` stands in the command line of that QEMU, and in no other."""

    def __init__(self, pidfile: Path) -> None:
        self.pidfile = pidfile

    def find(self) -> psutil.Process | None:
        """The process, None when it has ended."""
        try:
            pid = int(self.pidfile.read_text(encoding="utf-8"))
            written = self.pidfile.stat().st_mtime
        except (OSError, ValueError):
            return None
        import psutil  # 15 ms, and a stopped machine doesn't need it

        with contextlib.suppress(psutil.Error, ValueError):  # no process has a number below zero
            process = psutil.Process(pid)
            if process.create_time() <= written + TOLERANCE and self._is_ours(process):
                return process
        return None

    def find_all(self) -> Iterator[psutil.Process]:
        """Every process of the machine, with or without a pidfile: for clearing up after a crash."""
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._is_ours(process):
                    yield process

    def kill(self, *, timeout: float = 10) -> None:
        """End every process of the machine and wait until it is gone. timeout in seconds."""
        import psutil

        processes = list(self.find_all())
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        deadline = time.monotonic() + timeout
        while any(alive(process) for process in processes):
            if time.monotonic() > deadline:
                raise DriverFailed(f"QEMU (process {processes[0].pid}) doesn't end", hint="look at it: ps -l")
            time.sleep(0.01)
        self.pidfile.unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        option = ("-pidfile", str(self.pidfile))
        return process.pid != os.getpid() and option in pairwise(process.cmdline()) and alive(process)


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

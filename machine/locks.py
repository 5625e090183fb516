"""Locks between commands. Each wait has a deadline and a name, and the user is told when it takes long.

A lock is a file that the kernel locks (filelock), so a process that dies drops it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import wait
from machine.errors import WaitTimeout

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Seconds until the user is told of the wait: most locks are held for a moment only.
MOMENT = 2.0
Say = Callable[[str], None]


def _nothing(text: str) -> None:
    """For a caller that has nobody to tell."""


@contextlib.contextmanager
def held(
    path: Path, *, what: str, timeout: float, say: Say = _nothing, sign: Callable[[], object] = bool
) -> Iterator[None]:
    """Hold the lock of that file while the block lasts; see `acquire`."""
    from filelock import FileLock  # 30 ms, and a verb that only reads doesn't need it

    lock = FileLock(path, mode=0o600)
    acquire(lock, what=what, timeout=timeout, say=say, sign=sign)
    try:
        yield
    finally:
        lock.release()


def acquire(
    lock: BaseFileLock, *, what: str, timeout: float, say: Say = _nothing, sign: Callable[[], object] = bool
) -> None:
    """Take the lock when it is free.

    what names the wait, as in "another command to finish with the images". timeout in seconds; it begins again whenever
    sign() returns a new value, which shows that the other command makes progress. Raises WaitTimeout, and OSError when
    the file can't be locked.
    """
    began = time.monotonic()
    told = False

    def is_taken() -> bool:
        nonlocal told
        if attempt(lock):
            return True
        if not told and time.monotonic() - began > MOMENT:
            told = True
            say(f"waiting for {what}")
        return False

    while True:
        before = sign()
        try:
            wait.until(is_taken, timeout=timeout, what=what, interval=0.02, slowest=0.1)
        except WaitTimeout as error:
            if sign() == before:
                error.hint = _hint(lock)
                raise
        else:
            return


def attempt(lock: BaseFileLock) -> bool:
    """Take the lock if it is free now."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _hint(lock: BaseFileLock) -> str:
    if sys.platform == "win32":
        return "wait for the other command to end, or end it"
    return f"find the other command, then wait for it or end it: lsof {lock.lock_file}"

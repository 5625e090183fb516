"""Which rig the tests use, made and stopped around them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tests.windows.install import install
from tests.windows.rig import FOLDER_VARIABLE, Amiss, Rig

# Seconds, until somebody else's tests have ended.
IN_USE = 60.0


def folder() -> Path:
    """In the virtual environment that runs this, unless the variable names another."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path(sys.prefix) / "windows-rig").absolute()


@contextlib.contextmanager
def used(**variables: str) -> Iterator[Rig]:
    """The rig, with nothing running in it before and after. Raises Amiss."""
    rig = Rig(folder(), variables)
    rig.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(rig.folder / "lock")
    try:
        lock.acquire(timeout=IN_USE)
    except Timeout as error:
        raise Amiss(f"another program uses {rig.folder}; {FOLDER_VARIABLE} names another folder") from error
    try:
        rig.stop()
        install(rig)
        yield rig
    finally:
        rig.stop()
        lock.release()

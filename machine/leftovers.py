"""What a create or rm leaves of a machine's folder when it is killed, and the locks that tell it from work in progress.

The store's lock is held for moments only, while a folder is made or locked; a machine's lock for as long as a command
works on the machine, or clears what is left of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import files, paths
from machine.paths import Home

if TYPE_CHECKING:
    from filelock import FileLock

# How long a command waits for the store's lock, and for one that clears what a killed create has left: VBoxManage may
# take its time. Seconds.
PATIENCE = 30.0
SWEEP = 300.0
# In a left-over folder while a command clears it.
SWEEPING = "sweeping"
# A folder on its way out; no machine can have such a name.
TRASH = ".trash-"
# A folder that a command works in.
SCRATCH = ".scratch-"


def folder() -> Path:
    return paths.store() / "machines"


def is_left_over(place: Home) -> bool:
    """Whether a folder looks as a create or rm leaves it when it is killed: nothing in it yet, or creating.json."""
    is_trash = place.name.startswith(TRASH)
    if not os.access(place.folder, os.R_OK | os.W_OK | os.X_OK):
        return False  # somebody else's; its owner's commands clear it
    if paths.is_there(place.config) and not is_trash:
        return False
    if paths.is_there(place.creating) or is_trash:
        return True
    with contextlib.suppress(OSError), os.scandir(place.folder) as entries:
        unfinished = (place.lock.name, f".{place.creating.name}", SWEEPING)
        return all(entry.name.startswith(unfinished) for entry in entries)
    return False


def swept(place: Home, clear: Callable[[Home], None]) -> bool:
    """Remove what is left, unless somebody works in it; True when it was a machine's. Raises what clear raises."""
    if place.name.startswith(TRASH):
        shutil.rmtree(place.folder, ignore_errors=True)
        return False
    if (lock := _locked(place)) is None:
        return False
    try:
        clear(place)
        discard(place, lock)
    finally:
        with contextlib.suppress(OSError):
            (place / SWEEPING).unlink()
        lock.release()
    return True


def _locked(place: Home) -> FileLock | None:
    """The lock of the folder, held, when nobody works in it and it is left over.

    The store's lock is held for that moment only: a hypervisor may take minutes to remove what there is. It keeps off a
    create that has made its folder, and hasn't locked it yet.
    """
    with store_lock():
        lock = lock_of(place)
        if not paths.is_there(place.folder) or not _attempt(lock):
            return None
        if is_left_over(place):
            with contextlib.suppress(OSError):  # a full disk, on which this makes room
                (place / SWEEPING).touch(mode=0o600)
            return lock
        lock.release()  # create was through in between
        return None


def make_room(place: Home, clear: Callable[[Home], None], say: Callable[[str], None]) -> None:
    """Clear what a killed create has left under the name, or wait for the command that is just doing so.

    say is told what is awaited. Raises WaitTimeout, and what clear raises.
    """
    if not is_left_over(place) or swept(place, clear):
        return
    from machine import wait

    what = f"another command to clear what an interrupted create of {place.name} has left"
    if paths.is_there(place / SWEEPING):
        say(f"waiting for {what}")
    wait.until(lambda: not paths.is_there(place / SWEEPING), timeout=SWEEP, what=what)


def discard(place: Home, lock: FileLock) -> None:
    """Remove a home in one step for anyone who looks, and then its files."""
    trash = place.folder.with_name(f"{TRASH}{place.name}-{uuid.uuid4().hex[:8]}")
    if sys.platform == "win32":
        lock.release()  # an open file can't be moved there
    try:
        files.patiently(lambda: place.folder.rename(trash))
    except FileNotFoundError:
        pass
    except PermissionError:
        if sys.platform != "win32":
            raise
        # Some shell's current folder: it stays, empty, until a later command sweeps it.
        for path in (place.config, place.creating):
            files.remove(path)
        shutil.rmtree(place.folder, ignore_errors=True)
    lock.release()
    shutil.rmtree(trash, ignore_errors=True)


def folders() -> list[Path]:
    """All folders of the machines' place: machines, and what is on its way in or out."""
    try:
        with os.scandir(folder()) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def lock_of(place: Home) -> FileLock:
    from filelock import FileLock  # 30 ms, and a verb that only reads doesn't need it

    return FileLock(place.lock, mode=0o600)


def _attempt(lock: FileLock) -> bool:
    from machine import locks

    try:
        return locks.attempt(lock)
    except FileNotFoundError:  # its folder has gone in between
        return False


@contextlib.contextmanager
def store_lock(say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Held for moments only, while a folder is made or locked: never while a hypervisor is asked for something."""
    from machine import locks

    files.make_folder(folder())
    with locks.held(folder() / ".lock", what="another command to finish with the store", timeout=PATIENCE, say=say):
        yield

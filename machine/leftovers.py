"""What a killed create or rm leaves of a machine's folder, and the locks that distinguish it from work in progress.

The store's lock is held for moments only, while a folder is made or locked. A machine's lock is held as long as a
command works on the machine, or removes what is left of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import files, paths
from machine.paths import MachineFolder

if TYPE_CHECKING:
    from filelock import FileLock

# Seconds to wait for the store's lock, and for another command that removes what a killed create left: VBoxManage may
# be slow.
PATIENCE = 30.0
SWEEP = 300.0
# This file is in a left-over folder while a command removes the folder.
SWEEPING = "sweeping"
# The prefix of a folder that is being removed; no machine can have such a name.
TRASH = ".trash-"
# The prefix of a folder that a command works in.
SCRATCH = ".scratch-"


def folder() -> Path:
    return paths.store() / "machines"


def is_left_over(place: MachineFolder) -> bool:
    """Whether a folder looks like what a killed create or rm leaves: it is empty, or has creating.json."""
    is_trash = place.name.startswith(TRASH)
    if not os.access(place.path, os.R_OK | os.W_OK | os.X_OK):
        return False  # somebody else's; its owner's commands clear it
    if paths.is_there(place.config) and not is_trash:
        return False
    if paths.is_there(place.creating) or is_trash:
        return True
    with contextlib.suppress(OSError), os.scandir(place.path) as entries:
        unfinished = (place.lock.name, f".{place.creating.name}", SWEEPING)
        return all(entry.name.startswith(unfinished) for entry in entries)
    return False


def swept(place: MachineFolder, clear: Callable[[MachineFolder], None]) -> bool:
    """Remove a left-over folder, unless a command works in it; True when it was a machine's. Raises as clear does."""
    if place.name.startswith(TRASH):
        import shutil  # 4 ms, and most verbs only look

        shutil.rmtree(place.path, ignore_errors=True)
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


def _locked(place: MachineFolder) -> FileLock | None:
    """The folder's lock, already held, if the folder is left over and no command works in it.

    The store's lock excludes a create that has made its folder and hasn't locked it yet. It is held for this moment
    only, because a hypervisor may take minutes to remove the rest.
    """
    with store_lock():
        lock = lock_of(place)
        if not paths.is_there(place.path) or not _attempt(lock):
            return None
        if is_left_over(place):
            with contextlib.suppress(OSError):  # a full disk, on which this makes room
                (place / SWEEPING).touch(mode=0o600)
            return lock
        lock.release()  # create was through in between
        return None


def make_room(place: MachineFolder, clear: Callable[[MachineFolder], None], say: Callable[[str], None]) -> None:
    """Remove what a killed create has left under the name, or wait for another command that does so.

    say is called when this waits. Raises WaitTimeout, and what clear raises.
    """
    if not is_left_over(place) or swept(place, clear):
        return
    from machine import wait

    what = f"another command to clear what an interrupted create of {place.name} has left"
    if paths.is_there(place / SWEEPING):
        say(f"waiting for {what}")
    wait.until(lambda: not paths.is_there(place / SWEEPING), timeout=SWEEP, what=what)


def discard(place: MachineFolder, lock: FileLock) -> None:
    """Remove a machine's folder: rename it first, so that it disappears in one step, then delete its files."""
    import shutil
    import uuid

    trash = place.path.with_name(f"{TRASH}{place.name}-{uuid.uuid4().hex[:8]}")
    if sys.platform == "win32":
        lock.release()  # an open file can't be moved there
    try:
        files.patiently(lambda: place.path.rename(trash))
    except FileNotFoundError:
        pass
    except PermissionError:
        if sys.platform != "win32":
            raise
        # Some shell's current folder: it stays, empty, until a later command sweeps it.
        for path in (place.config, place.creating):
            files.remove(path)
        shutil.rmtree(place.path, ignore_errors=True)
    lock.release()
    with contextlib.suppress(OSError):  # on Windows another command may just look into it
        files.patiently(lambda: shutil.rmtree(trash))
    shutil.rmtree(trash, ignore_errors=True)


def folders() -> list[Path]:
    """All folders in machines/: machines, and those that are being made or removed."""
    try:
        with os.scandir(folder()) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def lock_of(place: MachineFolder) -> FileLock:
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
    """Hold the store's lock while a folder is made or locked; never hold it during a call of a hypervisor."""
    from machine import locks

    files.make_folder(folder())
    with locks.held(folder() / ".lock", what="another command to finish with the store", timeout=PATIENCE, say=say):
        yield

"""The helper process of a running machine: it forwards ports (`docker.forwarding`) as long as it lives.

When it is killed, the next command that asks for the machine's state starts another one. A lock shows whether one runs,
at the cost of opening a file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from machine.docker import liveness
from machine.docker.ports import NOTE
from machine.errors import MachineError
from machine.paths import MachineFolder
from machine.run import detach

LOCK = "helper.lock"
LOG = "helper.log"
# Seconds.
# A helper may take so long until it holds its lock.
YOUNG = 5.0
# A new helper waits so long for the helper of the machine's earlier run to end.
HANDOVER = 30.0
TICK = 0.1


def begin(folder: MachineFolder, module: str) -> None:
    """Start the helper of a machine that has just started: python -m MODULE FOLDER. An earlier helper ends itself."""
    with contextlib.suppress(OSError):  # a full disk, too: the helper can do without
        (folder / NOTE).unlink(missing_ok=True)
        liveness.forget(folder)
        _lock_file(folder).touch()
    with _log(folder) as output:
        # Not in our folder, which couldn't be removed on Windows as long as the machine runs, nor unmounted elsewhere.
        detach([sys.executable, "-m", module, folder.path], output=output, cwd=folder.store)


def ensure(folder: MachineFolder, module: str) -> None:
    """Start the helper of a running machine unless there is one. Costs some microseconds when there is."""
    with contextlib.suppress(OSError, MachineError):  # whoever asks for a machine's state gets it all the same
        if _is_ours(folder) and not _is_young(folder) and not _is_held(folder):
            begin(folder, module)


@contextlib.contextmanager
def alone(folder: MachineFolder) -> Iterator[bool]:
    """Hold the lock of the machine's helper.

    False when another has it and doesn't end within HANDOVER seconds, or the machine was removed meanwhile.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(forget, folder)
        held = True  # where files can't be locked, too
        with contextlib.suppress(OSError):
            stays = staying(folder)
            held = stays()
            file = stack.enter_context(_lock_file(folder).open("ab"))
            deadline = time.monotonic() + HANDOVER
            while not (held := try_lock(file.fileno())) and time.monotonic() < deadline and stays():
                time.sleep(TICK)
        yield held


def staying(folder: MachineFolder) -> Callable[[], bool]:
    """What tells whether the machine's folder is still the one of now: its create may be rolled back at any moment.

    A new machine of the same name has another folder.
    """
    first = _identity(folder.path)
    return lambda: first is not None and _identity(folder.path) == first


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def forget(folder: MachineFolder) -> None:
    """Remove the lock of a machine whose folder is gone: who removed that does so, and the helper at its end.

    On Windows the one who comes first can't, as long as the other has it open.
    """
    with contextlib.suppress(OSError):
        if sys.platform == "win32" and not folder.path.exists():
            _lock_file(folder).unlink(missing_ok=True)


def _log(folder: MachineFolder) -> IO[bytes]:
    # An open file would keep the machine's folder from being removed on Windows.
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return (folder / LOG).open("wb")
    return Path(os.devnull).open("wb")


def _is_ours(folder: MachineFolder) -> bool:
    """Whether the machine belongs to this user; a helper for another user's would write into a foreign folder."""
    return sys.platform == "win32" or folder.path.stat().st_uid == os.geteuid()


def _is_young(folder: MachineFolder) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return abs(time.time() - _lock_file(folder).stat().st_mtime) < YOUNG
    return False


def _is_held(folder: MachineFolder) -> bool:
    with _lock_file(folder).open("ab") as file:
        return not try_lock(file.fileno())


def _lock_file(folder: MachineFolder) -> Path:
    # An open file would keep the machine's folder from being removed on Windows.
    return folder.store / f"helper-{folder.name}.lock" if sys.platform == "win32" else folder / LOCK


def try_lock(descriptor: int) -> bool:
    """Lock an open file; False when another process has it. A process that ends drops its lock.

    filelock does the same, and takes 30 ms to import.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True

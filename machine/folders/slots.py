"""How many servers a machine may have at once: a guest can open any number of connections, and each has its process.

A slot is a byte of a file that its process has locked. The system frees it when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

FILE = "folders.lock"
# The kernel's client needs one, and for a moment a second when it connects again.
SLOTS = 8


def take(machine_folder: Path) -> int | None:
    """The slot that this process has from now on until it ends, None when there is none.

    Raises OSError where the file can't be made, or its file system has no locks.
    """
    # It stays open: closing it would free the slot (fcntl(2)).
    descriptor = os.open(machine_folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for slot in range(SLOTS):
        with contextlib.suppress(BlockingIOError, PermissionError):  # POSIX allows either for one that is taken
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            return slot
    os.close(descriptor)
    return None

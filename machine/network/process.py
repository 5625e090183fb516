"""The process of a network's switch: it is started with the network's first machine, and again if it was killed."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from machine import files
from machine.errors import MachineError
from machine.helper import try_lock
from machine.run import detach

MODULE = "machine.network.switch"
# Seconds.
# So often a machine's helper looks whether there is a switch.
LOOK = 5.0
# A new switch waits so long for the lock: the one before may be ending.
HANDOVER = 5.0
TICK = 0.1
# A switch may take so long until it holds its lock.
YOUNG = 3.0


class NetworkFolder:
    """The folder of one network, in the store's `networks`, and the names of the files in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def store(self) -> Path:
        return self.path.parent.parent

    # Held by the switch.
    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "switch.log"

    # The names of the machines that are connected, as JSON.
    @property
    def ports(self) -> Path:
        return self.path / "ports.json"

    def connected(self) -> list[str]:
        """The machines that the switch has connected; none when it doesn't run."""
        with contextlib.suppress(OSError, ValueError):
            if self.runs():
                return list(map(str, json.loads(self.ports.read_text(encoding="utf-8"))))
        return []

    def runs(self) -> bool:
        """Whether there is a switch. Raises OSError."""
        if not self.lock.exists():
            return False
        with self.lock.open("ab") as file:
            return not try_lock(file.fileno())


def folder_of(store: Path, network: str) -> NetworkFolder:
    return NetworkFolder(store / "networks" / network)


def ensure(store: Path, network: str) -> None:
    """Start the switch of a network unless there is one; costs some microseconds when there is.

    It fails silently: a machine without its network works, and the next command tries again.
    """
    folder = folder_of(store, network)
    with contextlib.suppress(OSError, MachineError):
        if _is_young(folder) or folder.runs():
            return
        files.make_folder(folder.path)
        folder.lock.touch(mode=0o600)
        with folder.log.open("wb") as output:
            detach([sys.executable, "-m", MODULE, folder.path], output=output, cwd=store)


def keep(store: Path, network: str) -> None:
    """See, as long as this process lives, that there is a switch: for the helper of a machine, in a thread."""
    while True:
        ensure(store, network)
        time.sleep(LOOK)


@contextlib.contextmanager
def alone(folder: NetworkFolder) -> Iterator[bool]:
    """Hold the lock of a network's switch; False when another one holds it."""
    with folder.lock.open("ab") as file:
        deadline = time.monotonic() + HANDOVER
        while not (held := try_lock(file.fileno())) and time.monotonic() < deadline:
            time.sleep(TICK)
        yield held


def _is_young(folder: NetworkFolder) -> bool:
    """Whether a switch has just been started: it may not hold its lock yet."""
    with contextlib.suppress(FileNotFoundError):
        return abs(time.time() - folder.lock.stat().st_mtime) < YOUNG
    return False

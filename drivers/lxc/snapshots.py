"""Snapshots: copies of Docker's file system, taken while the container stands still.

They hold no memory: where the machine ran, `restore` boots it from the copy, as after a power cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from machine import files
from machine.driver import Snapshot, State
from machine.errors import DriverFailed

from . import disk
from .container import Container
from .layout import SNAPSHOTS

_ABOUT, _DISK = "about.json", "disk.img"
# One process, which goes on when we are killed: a file system that stays frozen would block the machine for ever.
_STILL = """
trap '' HUP INT TERM
fsfreeze --freeze "$1" || exit
cp --sparse=always --reflink=auto -- "$2" "$3"
code=$?
fsfreeze --unfreeze "$1"
exit $code
"""


def take(container: Container, name: str) -> None:
    target = _folder(container, name)
    if (target / _ABOUT).exists():
        raise DriverFailed(f'the machine has a snapshot "{name}" already', hint="machine snapshot ls")
    shutil.rmtree(target, ignore_errors=True)  # of a call that was killed
    files.make_folder(target)
    running = container.state() in {State.RUNNING, State.SAVED}
    _copy(container, target / _DISK)
    about = Snapshot(name, datetime.now(UTC).isoformat(timespec="seconds"), running)
    files.write(target / _ABOUT, json.dumps(dataclasses.asdict(about)))


def all_of(container: Container) -> list[Snapshot]:
    found = []
    for path in (container.folder / SNAPSHOTS).glob(f"*/{_ABOUT}"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(Snapshot(**json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda one: (one.created, one.name))


def restore(container: Container, name: str) -> bool:
    """Put the disk back; the container is off then. Returns whether it ran when the snapshot was taken."""
    snapshot = _find(container, name)
    container.end()
    container.await_release()
    disk.copy(_folder(container, name) / _DISK, container.disk, container.run)
    return snapshot.running


def forget(container: Container, name: str) -> None:
    _find(container, name)
    shutil.rmtree(_folder(container, name))


def _find(container: Container, name: str) -> Snapshot:
    for snapshot in all_of(container):
        if snapshot.name == name:
            return snapshot
    raise DriverFailed(f'the machine has no snapshot "{name}"', hint="machine snapshot ls")


def _copy(container: Container, target: Path) -> None:
    """Copy the disk. In a container that is on, its file system is written out, and nobody writes to it meanwhile."""
    if container.state() is State.STOPPED:
        container.await_release()
        disk.copy(container.disk, target, container.run)
        return
    inside, run = container.inside(), container.run
    try:
        run([*inside, "sh", "-c", _STILL, "sh", container.layout.disk, container.disk, target], timeout=disk.COPY)
    finally:
        # Where the copy was interrupted; else there is nothing to do, which fsfreeze calls an error.
        run([*inside, "fsfreeze", "--unfreeze", container.layout.disk], check=False)


def _folder(container: Container, name: str) -> Path:
    return container.folder / SNAPSHOTS / name

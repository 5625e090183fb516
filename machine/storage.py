"""Checks of the store's files: their owners, who can read them, and free space."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from machine import filesystem, ownership, paths, store
from machine.errors import MachineError
from machine.findings import Finding, Level
from machine.leftovers import TRASH
from machine.paths import MachineFolder
from machine.resources import human

# Free space in the store's file system, in MiB, below which a machine's disk can't grow much further.
FREE_MIB = 2048


def the_store(bad: set[str]) -> Iterator[Finding]:
    """bad: the machines whose machine.json can't be read."""
    folder = paths.store()
    closed = list(ownership.blocked(folder))
    for path, command in closed:
        text = f"{path} can't be used: {ownership.owner(path)}"
        yield Finding("store", Level.ERROR, text, command, None if command.startswith("sudo") else _opening(path))
    if not closed:
        try:
            ownership.check_store()
            filesystem.check(folder)
        except MachineError as error:
            yield Finding("store", Level.ERROR, error.message, error.hint)
            return
    for name in sorted(bad):
        try:
            store.load(name)
        except MachineError as error:
            if error.hint not in {command for _, command in closed}:
                yield Finding("store", Level.ERROR, error.message, error.hint)
    exposed = [path for path in _private(folder) if path.stat().st_mode & 0o077] if os.name == "posix" else []
    for path in exposed:
        yield Finding("store", Level.ERROR, f"others can read {path}", f"chmod go= {path}", _closing(path))
    if not bad and not exposed and not closed:
        yield Finding("store", Level.OK, f"{folder} is in order")


def space() -> Iterator[Finding]:
    folder = paths.store()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free >> 20
    if free < FREE_MIB:
        hint = "make room there, or remove unused images: machine image prune"
        yield Finding("space", Level.WARNING, f"only {human(free)} are free in {folder}", hint)
    else:
        yield Finding("space", Level.OK, f"{human(free)} are free in {folder}")


def _private(top: Path) -> Iterator[Path]:
    """The store's folder, top, and what holds secrets in it."""
    # Without those on their way out: they are gone at the next look.
    folders = [path for path in top.glob("machines/*") if not path.name.startswith(TRASH)]
    candidates = [top, *top.glob("certs/*key.pem"), *folders]
    for folder in map(MachineFolder, folders):
        candidates += [folder.key, folder.server_key, folder.ssh_key, folder.host_key, folder.seed]
    return (path for path in candidates if _is_seen(path) and not path.is_symlink())


def _is_seen(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # `ownership.blocked` tells of it
        return False


def _closing(path: Path) -> Callable[[], None]:
    return lambda: path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def _opening(path: Path) -> Callable[[], None]:
    return lambda: path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o700 if path.is_dir() else 0o600))

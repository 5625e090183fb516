"""Checks of the store's place: can other programs read its path, and can its file system do what machines need?

exFAT, network mounts, and folders shared from another system lack some of it. This is tested before anything is made:
a list of file systems would soon be wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import paths
from machine.errors import CheckFailed
from machine.reasons import reason

# Neither ssh's configuration nor XML can hold the former; ssh would expand the latter as an environment variable.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VARIABLE = "${"
_PREFIX = ".machine-probe-"
# Seconds; a test takes milliseconds.
_OLD = 600.0


def check(store: Path) -> None:
    """Raise CheckFailed when the store can't hold machines. Leaves nothing behind, and takes a millisecond or two."""
    _check_words(store)
    with _probing(store) as folder:
        _check_locks(folder)
        if sys.platform != "win32":
            _check_modes(folder)


def check_sockets(store: Path) -> None:
    """Raise CheckFailed when the store can't hold a Unix socket."""
    with _probing(store) as folder:
        try:
            _make_socket(folder)
        except OSError as error:
            raise _lacking(store, f"no Unix sockets ({reason(error)})") from error


def _check_words(store: Path) -> None:
    if _CONTROL.search(str(store)) or _VARIABLE in str(store):
        raise CheckFailed(
            f"the path of the store, {str(store)!r}, has characters that ssh and others can't read",
            hint=f"choose one without control characters and ${{: export {paths.STORE_VARIABLE}=/var/tmp/machine",
        )


def _check_locks(folder: Path) -> None:
    from filelock import FileLock, Timeout

    try:
        FileLock(folder / "lock", mode=0o600).acquire(timeout=0).lock.release()
    except (OSError, NotImplementedError, Timeout) as error:
        raise _lacking(folder.parent, f"no locks ({getattr(error, 'strerror', None) or error})") from error


def _check_modes(folder: Path) -> None:
    file = folder / "key"
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        file.chmod(0o600)
        exposed = bool(stat.S_IMODE(file.stat().st_mode) & 0o077)
    except OSError as error:
        raise _lacking(folder.parent, f"no permissions of files ({reason(error)})") from error
    if exposed:
        raise _lacking(folder.parent, "no permissions of files: everybody could read your keys")


def _make_socket(folder: Path) -> None:
    """Bind the socket by a path that is short enough, even if the folder's isn't."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        short = Path(f"/proc/self/fd/{descriptor}")
        path = str((short if short.exists() else folder) / "s")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(path)
    finally:
        os.close(descriptor)


@contextmanager
def _probing(store: Path) -> Iterator[Path]:
    """A folder to try things in, on the file system where the store is or will be."""
    while not paths.is_there(store):
        store = store.parent
    _sweep(store)
    try:
        folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=store)
    except OSError as error:
        raise CheckFailed(f"files can't be written in {store}: {reason(error)}", hint=_elsewhere()) from error
    with folder as name:
        yield Path(name)


def _sweep(folder: Path) -> None:
    """Remove what a process left that was killed here: what is older than any that is at work."""
    limit = time.time() - _OLD
    with contextlib.suppress(OSError):
        for left in folder.glob(f"{_PREFIX}*"):
            if left.lstat().st_mtime < limit:
                shutil.rmtree(left, ignore_errors=True)


def _lacking(where: Path, what: str) -> CheckFailed:
    return CheckFailed(f"the file system of {where} has {what}", hint=_elsewhere())


def _elsewhere() -> str:
    return f"export {paths.STORE_VARIABLE}=/var/tmp/machine"

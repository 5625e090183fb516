"""Writing the store's files: whole or not at all, and readable by nobody else unless asked for."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# Seconds that a file on Windows may be busy.
PATIENCE = 2.0


def write(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Replace path by data atomically: a reader, or a crash, meets the old file or the new one, never a part.

    A str is written as UTF-8 with its line ends as they are; what isn't UTF-8 in a path, as the bytes that it was. The
    folder must be there. Raises OSError; the old file is untouched then and nothing is left beside it.
    """
    import secrets  # 10 ms, and `env` only reads

    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    # In the same folder, because a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        _write_through(temporary, raw, mode)
        patiently(lambda: temporary.replace(path))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def read_text(path: Path) -> str:
    """The text of a file that a person may have edited: UTF-8, or what an editor of Windows marked as UTF-8 or UTF-16.

    Raises OSError, UnicodeDecodeError.
    """
    raw = patiently(path.read_bytes)
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if marked else "utf-8-sig")


def overwrite(path: Path, data: bytes) -> None:
    """Write into the file itself, which another program has open and reads; where that can't be, as `write`.

    A crash may leave a part: for a file that is made anew before it is needed. Raises OSError.
    """
    try:
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size == len(data):
                file.write(data)
                return
    except (FileNotFoundError, PermissionError):
        pass
    write(path, data)


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it, each with mode; one that is there already keeps its own."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    # Somebody else may make it at this moment.
    if sys.platform != "win32":
        path.mkdir(mode=mode, exist_ok=True)
        return
    from machine import acl
    from machine.errors import MachineError

    path.mkdir(exist_ok=True)
    if not mode & 0o077:
        with contextlib.suppress(MachineError):  # a file system without access control lists can be used, too
            acl.make_private(path)


def patiently(action: Callable[[], T]) -> T:
    """Do it; on Windows again and again while that fails because somebody has the file open, or renames it.

    Virus scanners do so, and other commands. Raises what action raises, PermissionError after PATIENCE seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while sys.platform == "win32" and time.monotonic() < deadline:
        try:
            return action()
        except PermissionError:
            time.sleep(0.02)
    return action()


def set_aside(path: Path, name: str) -> None:
    """Rename a file of the same folder, if it is there. On Windows one that somebody reads (logs -f) keeps its name."""
    try:
        patiently(lambda: path.replace(path.with_name(name)))
    except FileNotFoundError:
        pass
    except PermissionError:
        if sys.platform != "win32":
            raise


def _write_through(path: Path, raw: bytes, mode: int) -> None:
    # The mode is there from the first byte: a key must not be readable by others even for a moment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode & 0o700), "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    # The umask has cut the mode that was asked for.
    path.chmod(mode)


def _sync_folder(folder: Path) -> None:
    # Without it the rename itself may be lost in a power cut. Windows opens no folders, some network shares sync none.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename inside one folder, atomically and for good: after a power cut the file has one name or the other."""
    patiently(lambda: source.replace(target))
    _sync_folder(target.parent)


def remove(*paths: Path) -> None:
    """Remove files of one folder for good: no power cut brings them back. Those that are absent are no error."""
    there = [path for path in paths if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        _sync_folder(there[0].parent)

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


def write(path: Path, data: bytes | str, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace path by data atomically: a reader, or a crash, finds the old file or the new one, never a part.

    A str is written as UTF-8, with its line ends unchanged; surrogate escapes (bytes of a path that aren't UTF-8)
    become the original bytes. The folder must exist. After an OSError the old file is unchanged, and nothing is left
    beside it. durable: whether it must survive a power cut, which costs milliseconds.
    """
    import secrets  # 10 ms, and `env` only reads

    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    # In the same folder, because a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        _write_new(temporary, raw, mode, durable=durable)
        patiently(lambda: temporary.replace(path))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def read_text(path: Path) -> str:
    """The text of a file that a person may have edited: UTF-8, or what an editor of Windows marked as UTF-8 or UTF-16.

    Raises OSError, UnicodeDecodeError.
    """
    raw = patiently(path.read_bytes)
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if marked else "utf-8-sig")


def overwrite(path: Path, data: bytes) -> None:
    """Write into the file itself, because another program has it open; where that fails, do as `write`.

    A crash may leave a part, so use this only for a file that is made again before it is needed. Raises OSError.
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
    """Make a folder and its parents, each with mode; existing ones keep theirs."""
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


def _write_new(path: Path, raw: bytes, mode: int, *, durable: bool) -> None:
    # Set the mode before the first byte: others must not be able to read a key even for a moment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode & 0o700), "wb") as file:
        file.write(raw)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    # umask may have cleared bits of mode; restore them.
    path.chmod(mode)


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may undo the rename. Windows can't open folders, and some network shares can't sync them.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename inside one folder, atomically and durably: after a power cut the file has one name or the other."""
    patiently(lambda: source.replace(target))
    _sync_folder(target.parent)


def remove(*paths: Path) -> None:
    """Remove files of one folder durably: a power cut doesn't bring them back. Missing files are no error."""
    there = [path for path in paths if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    if there:
        _sync_folder(there[0].parent)

"""Writes a folder as a cpio archive, in the format that the kernel unpacks as its initial root ("newc")."""

from __future__ import annotations

import stat
from pathlib import Path


def archive(folder: Path, *, time: int) -> bytes:
    """The archive of a folder. Equal contents give equal bytes: sorted, owned by root, one time for all files."""
    parts = []
    for number, path in enumerate(sorted(folder.rglob("*")), start=1):
        mode = path.lstat().st_mode
        parts.append(entry(str(path.relative_to(folder)), mode, contents(path, mode), number=number, time=time))
    return b"".join([*parts, entry("TRAILER!!!", 0, b"", number=0, time=0)])


def contents(path: Path, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return str(path.readlink()).encode()
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def entry(name: str, mode: int, data: bytes, *, number: int, time: int) -> bytes:
    fields = [number, mode, 0, 0, 1, time, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return padded(head) + padded(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

"""Read a tar from a stranger, from a file or a pipe: plain files with short names, and nothing else.

The standard library's reader accepts everything that a tar can hold: links, devices, holes, and headers of any size,
which it reads into memory. Here it parses each header, and everything except plain files is refused.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from machine.errors import MachineError
from machine.reasons import reason

BLOCK = 1 << 18
_RECORD = tarfile.BLOCKSIZE
_GZIP = b"\x1f\x8b"
_PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}
# A pax header before a file's own; earlier versions of `export` wrote the size of files beyond 8 GiB this way.
_LONGEST_EXTENSION = 4096
_EXTENDED = {"size", "mtime"}


@dataclass(frozen=True)
class Member:
    """size in bytes. It can be read once, before the next member is requested."""

    name: str
    size: int
    source: Stream

    def blocks(self) -> Iterator[bytes]:
        return self.source.rest()

    def content(self, at_most: int) -> bytes:
        """The whole member. Raises MachineError when it has more than limit bytes."""
        if self.size > at_most:
            raise foreign(f"{self.name} of {self.size} bytes")
        return b"".join(self.blocks())


class Stream:
    """A file that is read once, from beginning to end; `left`: unread bytes of the current member."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.left = 0

    def rest(self) -> Iterator[bytes]:
        while self.left:
            block = self.exactly(min(BLOCK, self.left))
            self.left -= len(block)
            yield block

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                block = self.file.read(size - len(found))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise MachineError(f"that file is damaged: {reason(error)}", hint="copy it here again") from error
            if not block:
                raise MachineError("that file is incomplete", hint="copy it here again")
            found = found + block if found else block
        return found


def members(file: IO[bytes]) -> Iterator[Member]:
    """The files of a tar, compressed by gzip or not. Raises MachineError for anything else."""
    stream = Stream(_unzipped(file))
    while header := _header(stream):
        size = header.size
        if header.type == tarfile.XHDTYPE:
            size = _extended_size(stream, size)
            header = _header(stream) or header
        if header.type not in _PLAIN:
            raise foreign(f"{header.name!r}, which is not a plain file")
        if size < 0:
            raise foreign(f"{header.name!r} of {size} bytes")
        stream.left = size
        yield Member(header.name, size, stream)
        for _ in stream.rest():  # what nobody read
            pass
        stream.exactly(-size % _RECORD)


def foreign(what: str) -> MachineError:
    """The error for something that no export writes."""
    return MachineError(
        f"machine export didn't write that file: it holds {what}", hint="get the file from somebody whom you trust"
    )


def _unzipped(file: IO[bytes]) -> IO[bytes]:
    begin = file.peek(2)[:2]  # type: ignore[attr-defined]  # both open(..., "rb") and stdin.buffer have it
    return gzip.open(file) if begin == _GZIP else file  # type: ignore[return-value]


def _header(stream: Stream) -> tarfile.TarInfo | None:
    """The next header; None at the end, which is a record of zeros."""
    raw = stream.exactly(_RECORD)
    if not any(raw):
        return None
    try:
        return tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise MachineError(
            f"that isn't a file of machine export: {reason(error)}", hint="machine export NAME FILE"
        ) from error


def _extended_size(stream: Stream, size: int) -> int:
    """The size that a pax header (POSIX pax, "Extended Header": LENGTH KEY=VALUE) gives to the file after it."""
    if size > _LONGEST_EXTENSION:
        raise foreign(f"a header of {size} bytes")
    text = stream.exactly(size)
    stream.exactly(-size % _RECORD)
    try:
        pairs = dict(line.partition(" ")[2].split("=", 1) for line in text.decode().splitlines())
        if pairs.keys() <= _EXTENDED:
            return int(pairs["size"])
    except (ValueError, KeyError, TypeError):
        pass
    raise foreign(f"the header {text[:80]!r}")

"""Remote procedure calls over a stream (RFC 5531): records, calls and replies."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from machine.folders import xdr

CALL, REPLY = 0, 1
VERSION = 2
AUTH_NONE, AUTH_SYS = 0, 1
SUCCESS, PROG_UNAVAIL, PROG_MISMATCH, PROC_UNAVAIL, GARBAGE_ARGS, SYSTEM_ERR = range(6)
# The highest bit of a fragment's length (RFC 5531, 11): it is the record's last.
_LAST = 0x80000000
# A guest whose record is longer is no NFS client: the largest is a write of 1 MiB.
_LONGEST = 2 << 20
# No client of NFS sends a record in more: each takes memory, also when it is empty.
_FRAGMENTS = 64
_AUTH_LIMIT = 400
# Bytes that are read at once: most calls are shorter, and come with one system call.
_AHEAD = 4096
# xid, kind, version of RPC; program, its version, procedure, how the caller is named.
_HEAD = struct.Struct(">III")
# Bytes that are rather copied than sent by a system call of their own; what says that more follows (not on macOS).
_COPIED = 32 << 10
_MORE = getattr(socket, "MSG_MORE", 0)
_CALL = struct.Struct(">IIII")


class Broken(Exception):
    """The stream holds no records, or ended amidst one: nothing more can be read from it."""


class Caller(NamedTuple):
    """Who asks, as the guest has it: a user and a group of its own, or root where it doesn't say."""

    uid: int = 0
    gid: int = 0


class Call(NamedTuple):
    xid: int
    program: int
    version: int
    procedure: int
    caller: Caller
    arguments: xdr.Reader
    # The whole message, by which a call that is sent once more is known.
    raw: memoryview


# In XDR; in parts where one is long, so that nobody has to copy it.
Results = bytes | tuple[bytes, ...]
Procedure = Callable[[Call], Results]


@dataclass(frozen=True)
class Program:
    """What answers one version of a program. A procedure may raise xdr.Garbage."""

    number: int
    version: int
    procedures: Mapping[int, Procedure]


def records(connection: socket.socket) -> Iterator[memoryview]:
    """The records that come in, until the other side hangs up. Raises Broken, OSError."""
    stream = _Stream(connection)
    while (word := stream.word(may_end=True)) is not None:
        parts: list[memoryview] = []
        size = 0
        while True:
            size += word & ~_LAST
            if size > _LONGEST or len(parts) >= _FRAGMENTS:
                raise Broken(f"a record of {size} bytes")
            parts.append(stream.take(word & ~_LAST))
            if word & _LAST:
                break
            following = stream.word()
            assert following is not None
            word = following
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


class _Stream:
    """What comes in, read ahead."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = memoryview(b"")

    def word(self, *, may_end: bool = False) -> int | None:
        """A number of four bytes; None when the stream ends before it and may. Raises Broken, OSError."""
        if not self._ahead and may_end and not self._fill():
            return None
        return int.from_bytes(self.take(4))

    def take(self, size: int) -> memoryview:
        """So many bytes. Raises Broken, OSError."""
        if size > len(self._ahead) and size <= _AHEAD:
            while len(self._ahead) < size:
                if not self._fill():
                    raise Broken("the connection ended amidst a record")
        if size <= len(self._ahead):
            found, self._ahead = self._ahead[:size], self._ahead[size:]
            return found
        return self._long(size)

    def _long(self, size: int) -> memoryview:
        """More than is read ahead, without a copy."""
        data = memoryview(bytearray(size))
        done = len(self._ahead)
        data[:done], self._ahead = self._ahead, memoryview(b"")
        while done < size:
            count = self._connection.recv_into(data[done:])
            if not count:
                raise Broken("the connection ended amidst a record")
            done += count
        return data

    def _fill(self) -> bool:
        """Read more ahead; False when the stream has ended. What was taken before stays as it is."""
        found = self._connection.recv(_AHEAD)
        self._ahead = memoryview(self._ahead.tobytes() + found)
        return bool(found)


def record(message: bytes) -> bytes:
    return xdr.u32(_LAST | len(message)) + message


def parse(message: memoryview) -> Call:
    """Raises xdr.Garbage for what is no call."""
    reader = xdr.Reader(message)
    xid, kind, protocol = reader.unpack(_HEAD)
    if kind != CALL:
        raise xdr.Garbage("no call")
    if protocol != VERSION:
        raise xdr.Garbage("another version of RPC")
    program, version, procedure, flavor = reader.unpack(_CALL)
    credentials = reader.opaque(_AUTH_LIMIT)
    reader.u32()
    reader.opaque(_AUTH_LIMIT)
    caller = _caller(credentials) if flavor == AUTH_SYS else Caller()
    return Call(xid, program, version, procedure, caller, reader, message)


def send(connection: socket.socket, message: Results) -> None:
    """Raises OSError."""
    parts = (message,) if isinstance(message, bytes) else message
    waiting = [xdr.u32(_LAST | sum(map(len, parts)))]
    for part in parts:
        if len(part) > _COPIED:
            connection.sendall(b"".join(waiting), _MORE)
            connection.sendall(part)
            waiting.clear()
        else:
            waiting.append(part)
    if waiting:
        connection.sendall(b"".join(waiting))


def answer(call: Call, programs: list[Program]) -> Results:
    """The message that answers the call; an error of the protocol is an answer too."""
    same = [program for program in programs if program.number == call.program]
    if not same:
        return accepted(call.xid, PROG_UNAVAIL)
    found = next((program for program in same if program.version == call.version), None)
    if found is None:
        versions = [program.version for program in same]
        return accepted(call.xid, PROG_MISMATCH, xdr.u32(min(versions)) + xdr.u32(max(versions)))
    if call.procedure not in found.procedures:
        return accepted(call.xid, PROC_UNAVAIL)
    try:
        results = found.procedures[call.procedure](call)
        return (
            accepted(call.xid, SUCCESS, results)
            if isinstance(results, bytes)
            else (
                accepted(call.xid, SUCCESS),
                *results,
            )
        )
    except xdr.Garbage:
        return accepted(call.xid, GARBAGE_ARGS)


def accepted(xid: int, state: int, results: bytes = b"") -> bytes:
    return struct.pack(">IIIIII", xid, REPLY, 0, AUTH_NONE, 0, state) + results


def _caller(credentials: bytes) -> Caller:
    reader = xdr.Reader(credentials)
    reader.u32()
    reader.opaque(255)
    return Caller(reader.u32(), reader.u32())

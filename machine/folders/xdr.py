"""External Data Representation (RFC 4506), as much of it as RPC and NFS need."""

from __future__ import annotations

import struct
from typing import Any

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

u32 = _U32.pack
u64 = _U64.pack


class Garbage(ValueError):
    """Bytes that aren't what they should be."""


class Reader:
    """Takes values from the beginning of data to its end. Each method raises Garbage where there is no such value."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def u32(self) -> int:
        (value,) = self.unpack(_U32)
        return int(value)

    def u64(self) -> int:
        (value,) = self.unpack(_U64)
        return int(value)

    def unpack(self, fields: struct.Struct) -> tuple[Any, ...]:
        """Fields of fixed sizes at once, which is several times as quick as one by one."""
        try:
            values = fields.unpack_from(self._data, self._at)
        except struct.error as error:
            raise Garbage("the message is cut short") from error
        self._at += fields.size
        return values

    def flag(self) -> bool:
        if (value := self.u32()) > 1:
            raise Garbage(f"{value} is no boolean")
        return bool(value)

    def fixed(self, size: int) -> bytes:
        return bytes(self.view(size))

    def opaque(self, limit: int) -> bytes:
        """Bytes with their length before them; limit is the most that there may be."""
        return bytes(self.data(limit))

    def data(self, limit: int) -> memoryview:
        """As `opaque`, without copying."""
        if (size := self.u32()) > limit:
            raise Garbage(f"{size} bytes where {limit} are allowed")
        found = self.view(size)
        if padding := -size % 4:
            self.view(padding)
        return found

    def view(self, size: int) -> memoryview:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise Garbage("the message is cut short")
        self._at += size
        return found


def opaque(data: bytes) -> bytes:
    return b"".join((_U32.pack(len(data)), data, _PADDING[len(data) % 4]))


def flag(value: bool) -> bytes:
    return b"\0\0\0\1" if value else b"\0\0\0\0"

"""Disks as files, with what somebody could write into their headers."""

from __future__ import annotations

import struct

BACKING_FORMAT, DATA_FILE = 0xE2792ACA, 0x44415441
_TABLE = 0x20000


def qcow2(
    size: int = 64 << 20,
    *,
    backing: str = "",
    backing_format: str = "",
    data_file: str = "",
    encryption: int = 0,
    incompatible: int = 0,
    snapshots: tuple[tuple[str, int], ...] = (),
) -> bytes:
    """A qcow2 header (version 3), and a table of snapshots: (name, bytes of memory)."""
    extensions = b""
    for kind, text in ((BACKING_FORMAT, backing_format), (DATA_FILE, data_file)):
        if text:
            extensions += struct.pack(">II", kind, len(text)) + text.encode().ljust(-(-len(text) // 8) * 8, b"\0")
    extensions += bytes(8)
    backing_at = 104 + len(extensions) if backing else 0
    header = b"QFI\xfb" + struct.pack(">IQIIQI", 3, backing_at, len(backing), 16, size, encryption)
    header += struct.pack(">IQQIIQ", 1, 0x30000, 0x10000, 1, len(snapshots), _TABLE if snapshots else 0)
    header += struct.pack(">QQQII", incompatible | (4 if data_file else 0), 0, 0, 4, 104)
    table = b"".join(_snapshot(*one) for one in snapshots)
    header = (header + extensions + backing.encode()).ljust(0x1000, b"\0")
    return header.ljust(_TABLE, b"\0") + table.ljust(0x20000, b"\0") if snapshots else header


def _snapshot(name: str, memory: int) -> bytes:
    entry = struct.pack(">QIHHIIQII", 0, 1, 1, len(name.encode()), 0, 0, 0, min(memory, 0xFFFFFFFF), 24)
    entry += struct.pack(">QQQ", memory, 0, 0) + b"1" + name.encode()
    return entry.ljust(-(-len(entry) // 8) * 8, b"\0")


def vdi(size: int = 64 << 20, *, kind: int = 1, parent: bytes = bytes(16)) -> bytes:
    """A VDI header (1.1): kind 1 grows as it fills, 4 is an overlay of its parent."""
    header = bytearray(0x200)
    struct.pack_into("<IIII", header, 0x40, 0xBEDA107F, 0x00010001, 0x190, kind)
    struct.pack_into("<Q", header, 0x170, size)
    header[0x188:0x198] = bytes(range(16))
    header[0x1A8:0x1B8] = parent
    return bytes(header)

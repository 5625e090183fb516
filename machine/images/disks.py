"""The headers of virtual disks: the format of a file, and the other files that it names.

A program that opens a disk, even qemu-img, also opens the files that it names: a backing file, an external data file,
the extents of a VMDK. These may be any file of the host, or a URL. So a stranger's disk has its header read here first.

Sources: QEMU's docs/interop/qcow2.rst; VirtualBox's include/VBox/vd-ifs-internal.h and VDICore.h (VDI 1.1); VMware's
"Virtual Disk Format 5.0".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from machine.errors import ImageCorrupt

_QCOW2 = b"QFI\xfb"
_EXTERNAL_DATA = 1 << 2  # of incompatible_features
_BACKING_FORMAT, _DATA_FILE = 0xE2792ACA, 0x44415441  # header extensions
_LONGEST_NAME = 1023
_MOST_SNAPSHOTS = 65536
_SNAPSHOT = struct.Struct(">QIHHIIQII")

_VDI = struct.Struct("<I")
_VDI_SIGNATURE, _VDI_AT = 0xBEDA107F, 0x40
_VDI_WHOLE = {1, 2}  # grows as it fills, or full size from the beginning; others depend on a parent

# The first bytes of formats that can name other files; a program that guesses a disk's format recognises them.
_OTHERS = {
    b"KDMV": "VMDK",
    b"COWD": "VMDK",
    b"# Disk DescriptorFile": "VMDK",
    b"QED\0": "QED",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"WithoutFreeSpace": "Parallels",
    b"WithouFreSpacExt": "Parallels",
    b"OOOM": "cow",
}


@dataclass(frozen=True)
class Disk:
    """format is "qcow2", "vdi" or "raw" (a file without a disk's header); size in bytes, as the guest sees it.

    backing, backing_format: the backing file as the header names it, "" for none.
    needs: what else the disk needs, in words (another file, a parent, a password), "" for nothing.
    """

    format: str
    size: int
    backing: str = ""
    backing_format: str = ""
    needs: str = ""


class Snapshot(NamedTuple):
    """An internal snapshot of a qcow2 file. at: the offset of its entry; extra: the size of its optional part, in
    bytes."""

    name: str
    at: int
    extra: int
    memory: bool


def look(path: Path) -> Disk:
    """Read a disk's header; opens none of the files that it names. Raises ImageCorrupt for an invalid header."""
    with path.open("rb") as file:
        begin = file.read(512)
        if begin.startswith(_QCOW2):
            return _qcow2(path, file)
        if begin[_VDI_AT : _VDI_AT + 4] == _VDI.pack(_VDI_SIGNATURE):
            return _vdi(path, begin)
    for magic, name in _OTHERS.items():
        if begin.startswith(magic):
            raise ImageCorrupt(
                f"{path} is a {name} disk, which machine can't boot",
                hint=f"convert it: qemu-img convert -O qcow2 {path.name} NEW",
            )
    return Disk("raw", path.stat().st_size)


def check_whole(path: Path) -> Disk:
    """The disk, which needs no other file. Raises ImageCorrupt when it names one."""
    disk = look(path)
    if needed := disk.needs or (f"the file {disk.backing}" if disk.backing else ""):
        raise ImageCorrupt(
            f"{path} is only a part of a disk: it needs {needed}",
            hint=f"make it one file: qemu-img convert -O {disk.format} {path.name} NEW",
        )
    return disk


def snapshots(path: Path) -> list[Snapshot]:
    """The internal snapshots of a qcow2 file, in its order. Raises ImageCorrupt."""
    with path.open("rb") as file:
        (count, offset) = struct.unpack(">IQ", _at(path, file, 60, 12))
        if count > _MOST_SNAPSHOTS:
            raise _damaged(path, f"{count} snapshots")
        return list(_snapshots(path, file, count, offset))


def forget_memory(path: Path) -> list[str]:
    """Drop the memory of a qcow2 file's snapshots; their disks stay. Returns the names of those that had memory.

    The clusters of the memory still belong to the snapshot, and become free when it is removed.
    """
    kept = [one for one in snapshots(path) if one.memory]
    with path.open("r+b") as file:
        for one in kept:
            file.seek(one.at + 32)
            file.write(bytes(4))  # vm_state_size
            if one.extra >= 8:
                file.seek(one.at + _SNAPSHOT.size)
                file.write(bytes(8))  # the same, of 64 bits
    return [one.name for one in kept]


def _qcow2(path: Path, file: IO[bytes]) -> Disk:
    version, backing_at, backing_size, _, size, encryption = struct.unpack(">IQIIQI", _at(path, file, 4, 32))
    if version not in {2, 3}:
        raise _damaged(path, f"version {version} of qcow2")
    if backing_size > _LONGEST_NAME:
        raise _damaged(path, "a backing file's name that is too long")
    incompatible, header = 0, 72
    if version == 3:
        (incompatible,) = struct.unpack(">Q", _at(path, file, 72, 8))
        (header,) = struct.unpack(">I", _at(path, file, 100, 4))
    extensions = dict(_extensions(path, file, header))
    needs = ""
    if incompatible & _EXTERNAL_DATA or _DATA_FILE in extensions:
        needs = f"the file {_text(extensions.get(_DATA_FILE, b'')) or 'of its data'}"
    elif encryption:
        needs = "a password"
    return Disk(
        format="qcow2",
        size=size,
        backing=_text(_at(path, file, backing_at, backing_size)) if backing_at else "",
        backing_format=_text(extensions.get(_BACKING_FORMAT, b"")),
        needs=needs,
    )


def _extensions(path: Path, file: IO[bytes], at: int) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the header's extensions. They end within the first cluster, which is 2 MiB at most."""
    while at < 2 << 20:
        kind, size = struct.unpack(">II", _at(path, file, at, 8))
        if kind == 0:
            return
        if size > 2 << 20:
            break
        yield kind, _at(path, file, at + 8, size)
        at += 8 + -(-size // 8) * 8
    raise _damaged(path, "extensions without an end")


def _snapshots(path: Path, file: IO[bytes], count: int, at: int) -> Iterator[Snapshot]:
    for _ in range(count):
        entry = _SNAPSHOT.unpack(_at(path, file, at, _SNAPSHOT.size))
        id_size, name_size, memory, extra = entry[2], entry[3], entry[7], entry[8]
        if extra > 1024:
            raise _damaged(path, "a snapshot with too much beside it")
        large = _at(path, file, at + _SNAPSHOT.size, extra)[:8]
        name_at = at + _SNAPSHOT.size + extra + id_size
        yield Snapshot(_text(_at(path, file, name_at, name_size)), at, extra, bool(memory or any(large)))
        at += -(-(_SNAPSHOT.size + extra + id_size + name_size) // 8) * 8


def _vdi(path: Path, begin: bytes) -> Disk:
    if len(begin) < 0x1B8:
        raise _damaged(path, "less than its header")
    (kind,) = _VDI.unpack_from(begin, 0x4C)
    (size,) = struct.unpack_from("<Q", begin, 0x170)
    whole = kind in _VDI_WHOLE and not any(begin[0x1A8:0x1B8])  # the UUID of its parent
    return Disk("vdi", size, needs="" if whole else "the disk that it is an overlay of")


def _at(path: Path, file: IO[bytes], at: int, size: int) -> bytes:
    try:
        file.seek(at)
        found = file.read(size)
    except (OSError, OverflowError, ValueError):  # a place beyond all files
        found = b""
    if len(found) < size:
        raise _damaged(path, "less than its header says")
    return found


def _text(raw: bytes) -> str:
    # As printed: what a stranger wrote goes into messages.
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)


def _damaged(path: Path, what: str) -> ImageCorrupt:
    return ImageCorrupt(f"{path} is damaged: it holds {what}", hint="download it, or make it, again")

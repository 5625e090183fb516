"""What a file is: its attributes in one system call, with the time of its birth where that can be told."""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import struct
import sys
from typing import NamedTuple

# statx(2); the fields up to the devices' numbers.
_STATX = struct.Struct("=IIQIIIHxxQQQ8xqI4xqI4xqI4xqI4xIIII")
_STATX_SIZE = 256
_BIRTH = 0x800
_MASK = 0x7FF | _BIRTH
_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
# A listing mounts nothing (as of stat(2)).
_NO_AUTOMOUNT = 0x800
# What the system remembers, without asking a file system's server (statx(2)); and of the answer: a file system begins.
_DONT_SYNC, _MOUNT_ROOT = 0x4000, 0x2000
_SECOND = 1_000_000_000
_U64 = (1 << 64) - 1


class Identity(NamedTuple):
    """Which file it is, whatever its name. A number of an inode is used again: the time of birth tells them apart.

    born in nanoseconds, 0 where the file system doesn't know it.
    """

    device: int
    inode: int
    born: int


class Attributes(NamedTuple):
    """size and used in bytes, times in nanoseconds, device: the numbers of a device file."""

    mode: int
    links: int
    uid: int
    gid: int
    size: int
    used: int
    identity: Identity
    accessed: int
    modified: int
    changed: int
    device: tuple[int, int]
    # The top folder of a file system, where that can be told.
    is_mounted: bool = False

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


def of(folder: int, name: bytes, *, waits: bool = True) -> Attributes:
    """Of what has that name in an open folder, a symbolic link's own. Raises OSError.

    waits: False to have what is remembered of the top folder of another file system, whose server may not answer.
    """
    if _statx:
        flags = _SYMLINK_NOFOLLOW | _NO_AUTOMOUNT
        if not waits:
            remembered = _by_statx(folder, name, flags | _DONT_SYNC)
            if remembered.is_mounted:
                return remembered
        return _by_statx(folder, name, flags)
    return _converted(os.stat(name, dir_fd=folder, follow_symlinks=False))


def of_open(descriptor: int) -> Attributes:
    """Of an open file or folder. Raises OSError."""
    if _statx:
        return _by_statx(descriptor, b"", _EMPTY_PATH)
    return _converted(os.fstat(descriptor))


def file_id(top: Identity, of: Identity) -> int:
    """The number that the guest has for a file. top: of the export.

    Other file systems below the export have numbers of their own, and the guest sees one file system.
    """
    if of.device == top.device:
        return of.inode
    return int.from_bytes(hashlib.blake2b(struct.pack(">QQ", of.device, of.inode), digest_size=8).digest())


def _by_statx(folder: int, name: bytes, flags: int) -> Attributes:
    buffer = _Buffer()
    assert _statx
    if _statx(folder, name, flags, _MASK, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # fmt: off
    (known, _, about, links, uid, gid, mode, inode, size, blocks, accessed, accessed_ns, born, born_ns,
     changed, changed_ns, modified, modified_ns, major, minor, device, device_minor) = _STATX.unpack_from(buffer)
    # fmt: on
    is_mounted = bool(about & _MOUNT_ROOT)
    # The top folder's number isn't used again; and what is remembered of it may lack its birth.
    birth = (born * _SECOND + born_ns) & _U64 if known & _BIRTH and not is_mounted else 0
    return Attributes(
        mode,
        links,
        uid,
        gid,
        size,
        blocks * 512,
        Identity(device << 32 | device_minor, inode, birth),
        accessed * _SECOND + accessed_ns,
        modified * _SECOND + modified_ns,
        changed * _SECOND + changed_ns,
        (major, minor),
        is_mounted,
    )


def _converted(found: os.stat_result) -> Attributes:
    # BSD has -1 where the file system doesn't know it.
    born = max(0, int(getattr(found, "st_birthtime", 0) * _SECOND))
    return Attributes(
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_blocks * 512,
        Identity(found.st_dev, found.st_ino, born),
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        (os.major(found.st_rdev), os.minor(found.st_rdev)),
    )


_Buffer = ctypes.c_char * _STATX_SIZE
# C libraries before 2018 have none.
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None) if sys.platform == "linux" else None

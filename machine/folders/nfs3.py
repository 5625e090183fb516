"""NFS version 3 (RFC 1813): its 22 procedures, over an export.

Who asks doesn't matter: all is done with the rights of the host's user, whose process this is. What that user owns
looks as if it belonged to whoever asks, so that every user of a container may write it; the files of others look like
nobody's. Who owns a file isn't for the guest to say: chown succeeds, and changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from machine.folders import attributes, xdr
from machine.folders.attributes import Attributes, Identity
from machine.folders.changes import Writer
from machine.folders.export import Export, OpenFile, safe
from machine.folders.handles import BadHandle, Handles
from machine.folders.rpc import Call, Caller, Procedure, Program, Results

PROGRAM, VERSION = 100003, 3
# fmt: off
(NULL, GETATTR, SETATTR, LOOKUP, ACCESS, READLINK, READ, WRITE, CREATE, MKDIR, SYMLINK, MKNOD, REMOVE, RMDIR, RENAME,
 LINK, READDIR, READDIRPLUS, FSSTAT, FSINFO, PATHCONF, COMMIT) = range(22)
# fmt: on
OK, PERM, IO, ACCES, EXIST, INVAL, STALE = 0, 1, 5, 13, 17, 22, 70
BADHANDLE, NOT_SYNC, NOTSUPP, TOOSMALL, JUKEBOX = 10001, 10002, 10004, 10005, 10008
# What may wait for a disk: other calls go on meanwhile.
SLOW = frozenset({READ, WRITE, COMMIT})
# What must not be done twice when the guest asks again, because it doesn't know whether it was.
ONCE = frozenset({CREATE, MKDIR, SYMLINK, REMOVE, RMDIR, RENAME, LINK})
CHANGING = ONCE | {SETATTR, WRITE}

READ_, LOOKUP_, MODIFY, EXTEND, DELETE, EXECUTE = 1, 2, 4, 8, 16, 32
UNCHECKED, GUARDED, EXCLUSIVE = range(3)
UNSTABLE, DATA_SYNC, FILE_SYNC = range(3)
# Bytes.
LARGEST = 1 << 20
_LISTING = 256 << 10
_NAME = 255
_PATH = 4095
_HANDLE = 64
_NOBODY = 65534
_SECOND = 1_000_000_000
_FATTR = struct.Struct(">IIIIIQQIIQQIIIIII")
_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFBLK: 3,
    stat.S_IFCHR: 4,
    stat.S_IFLNK: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFIFO: 7,
}
# Those that NFS has a word for are the same numbers that Linux has, but for these.
_ERRORS = {
    number: number
    for number in (
        *(errno.EPERM, errno.ENOENT, errno.EIO, errno.ENXIO, errno.EACCES, errno.EEXIST, errno.EXDEV, errno.ENODEV),
        *(errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.ENOSPC, errno.EROFS, errno.EMLINK),
    )
} | {
    errno.ENAMETOOLONG: 63,
    errno.ENOTEMPTY: 66,
    errno.EDQUOT: 69,
    errno.ESTALE: STALE,
    errno.ELOOP: INVAL,
    errno.EBUSY: ACCES,
    errno.ETXTBSY: ACCES,
    errno.ENOMEM: JUKEBOX,
    errno.ENFILE: JUKEBOX,
    errno.EMFILE: JUKEBOX,
    errno.EAGAIN: JUKEBOX,
    errno.EOPNOTSUPP: NOTSUPP,
}
_ABSENT, _TRUE = xdr.flag(False), xdr.flag(True)
_NO_CHANGE = _ABSENT * 2


class Refused(Exception):
    """An answer with one of NFS's own errors."""

    def __init__(self, status: int) -> None:
        self.status = status


@dataclass(frozen=True)
class Wanted:
    """Attributes to set (sattr3), None for those to leave. Times in nanoseconds."""

    mode: int | None
    size: int | None
    accessed: int | None
    modified: int | None


class Target(NamedTuple):
    """What a handle stands for."""

    export: Export
    identity: Identity


class Nfs3:
    """exports by their marks; verifier: 8 bytes that change when data may be lost that wasn't committed.

    changes: where it is said what the guest changed, None for nowhere.
    """

    once = ONCE

    def __init__(
        self, exports: Mapping[bytes, Export], handles: Handles, verifier: bytes, changes: Writer | None = None
    ) -> None:
        self.exports = exports
        self.changes = changes
        self.handles = handles
        self.verifier = verifier
        self.uid = os.geteuid()
        # Everything but reading and writing files' contents is done by one thread at a time.
        self.lock = handles.lock

    def program(self) -> Program:
        """Each procedure with what its answer holds after an error: attributes, which aren't told then."""
        wcc = _NO_CHANGE
        table: dict[int, tuple[Procedure, bytes]] = {
            GETATTR: (self.getattr, b""),
            SETATTR: (self.setattr, wcc),
            LOOKUP: (self.lookup, _ABSENT),
            ACCESS: (self.access, _ABSENT),
            READLINK: (self.readlink, _ABSENT),
            READ: (self.read, _ABSENT),
            WRITE: (self.write, wcc),
            CREATE: (self.create, wcc),
            MKDIR: (self.mkdir, wcc),
            SYMLINK: (self.symlink, wcc),
            MKNOD: (self.mknod, wcc),
            REMOVE: (self.remove, wcc),
            RMDIR: (self.rmdir, wcc),
            RENAME: (self.rename, wcc * 2),
            LINK: (self.link, _ABSENT + wcc),
            READDIR: (self.readdir, _ABSENT),
            READDIRPLUS: (self.readdirplus, _ABSENT),
            FSSTAT: (self.fsstat, _ABSENT),
            FSINFO: (self.fsinfo, _ABSENT),
            PATHCONF: (self.pathconf, _ABSENT),
            COMMIT: (self.commit, wcc),
        }
        procedures = {
            number: self._guarded(*entry, once=number in self.once, changes=number in CHANGING)
            for number, entry in table.items()
        }
        return Program(PROGRAM, VERSION, {NULL: lambda call: b"", **procedures})

    def handle(self, export: Export, identity: Identity) -> bytes:
        return self.handles.seal(export.mark, identity)

    # Attributes

    def getattr(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            return xdr.u32(OK) + self._fattr(target.export, target.export.find(target.identity), call.caller)

    def setattr(self, call: Call) -> bytes:
        target, wanted = self._target(call), _wanted(call.arguments)
        guard = _time(call.arguments) if call.arguments.flag() else None
        with self.lock:
            self._check_writable(target)
            before = target.export.find(target.identity)
            if guard is not None and guard != before.changed:
                raise Refused(NOT_SYNC)
            self._set(target, before, wanted)
            return xdr.u32(OK) + self._wcc(target, before, call.caller)

    def access(self, call: Call) -> bytes:
        target, asked = self._target(call), call.arguments.u32()
        with self.lock:
            folder, name, found = target.export.locate(target.identity)
            allowed = asked & _allowed(folder, name, found)
        if target.export.read_only:
            allowed &= ~(MODIFY | EXTEND | DELETE)
        return xdr.u32(OK) + self._post(target.export, found, call.caller) + xdr.u32(allowed)

    # Names

    def lookup(self, call: Call) -> bytes:
        target, name = self._target(call), name_of(call.arguments)
        export = target.export
        with self.lock:
            folder, own = export.folder(target.identity)
            if name == b".":
                found = own
            elif name == b"..":
                found = export.find(export.parent(target.identity))
            else:
                found = export.child(folder, target.identity, name)
        return (
            xdr.u32(OK)
            + xdr.opaque(self.handle(export, found.identity))
            + self._post(export, found, call.caller)
            + self._post(export, own, call.caller)
        )

    def readlink(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            folder, name, found = target.export.locate(target.identity)
            text = os.readlink(name, dir_fd=folder)
        return xdr.u32(OK) + self._post(target.export, found, call.caller) + xdr.opaque(text)

    def create(self, call: Call) -> bytes:
        target, name = self._target(call), new_name(call.arguments)
        how = call.arguments.u32()
        if how > EXCLUSIVE:
            raise xdr.Garbage("no way of creating")
        mark = _exclusive_mark(call.arguments.fixed(8)) if how == EXCLUSIVE else None
        wanted = mark or _wanted(call.arguments)
        size = _offset(wanted.size or 0)

        def make(folder: int) -> None:
            mode = safe(0o600 if wanted.mode is None else wanted.mode)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                file = OpenFile(os.open(name, flags, mode, dir_fd=folder), writable=True)
            except FileExistsError:
                found = target.export.child(folder, target.identity, name)
                if how == UNCHECKED and found.is_file:
                    self._set(Target(target.export, found.identity), found, Wanted(None, wanted.size, None, None))
                    return
                # Asked again by a guest that didn't hear that it was made.
                if mark and (found.accessed, found.modified) == (mark.accessed, mark.modified):
                    return
                raise
            made = target.export.attributes_of(file.descriptor)
            target.export.keep(made.identity, file)
            if size:
                os.ftruncate(file.descriptor, size)
            _set_times(folder, name, made, wanted)

        return self._made(call, target, name, make)

    def mkdir(self, call: Call) -> bytes:
        target, name, wanted = self._target(call), new_name(call.arguments), _wanted(call.arguments)
        mode = 0o777 if wanted.mode is None else stat.S_IMODE(wanted.mode)

        def make(folder: int) -> None:
            os.mkdir(name, mode & 0o777, dir_fd=folder)
            if mode & ~0o777:
                made = target.export.child(folder, target.identity, name)
                target.export.set_mode(folder, name, made, mode)

        return self._made(call, target, name, make)

    def symlink(self, call: Call) -> bytes:
        target, name, _ = self._target(call), new_name(call.arguments), _wanted(call.arguments)
        text = call.arguments.opaque(_PATH)
        if not text or b"\0" in text:
            raise Refused(INVAL)
        return self._made(call, target, name, lambda folder: os.symlink(text, name, dir_fd=folder))

    def mknod(self, call: Call) -> bytes:
        """Devices, sockets and FIFOs would be of no use on the other side.

        RFC 1813 has NOTSUPP for this, which Linux shows as "Unknown error 524".
        """
        raise Refused(PERM)

    def remove(self, call: Call) -> bytes:
        return self._removed(call, lambda folder, name: os.unlink(name, dir_fd=folder))

    def rmdir(self, call: Call) -> bytes:
        return self._removed(call, lambda folder, name: os.rmdir(name, dir_fd=folder))

    def rename(self, call: Call) -> bytes:
        source, old = self._target(call), new_name(call.arguments)
        target, new = self._target(call), new_name(call.arguments)
        if source.export is not target.export:
            raise OSError(errno.EXDEV, "another export")
        export = source.export
        with self.lock:
            self._check_writable(source)
            (here, before), (there, others) = export.folder(source.identity), export.folder(target.identity)
            export.check_new(there, target.identity, new)
            moved, replaced = export.child(here, source.identity, old), None
            export.check_may_go(moved)
            with contextlib.suppress(FileNotFoundError):
                replaced = export.child(there, target.identity, new)
                export.check_may_go(replaced)
            os.rename(old, new, src_dir_fd=here, dst_dir_fd=there)
            if replaced and replaced.identity != moved.identity:
                export.forget(replaced)
            self._tell(export.child(there, target.identity, new))
            self._tell_removal(source, old)
            return xdr.u32(OK) + self._wcc(source, before, call.caller) + self._wcc(target, others, call.caller)

    def link(self, call: Call) -> bytes:
        source = self._target(call)
        target, name = self._target(call), new_name(call.arguments)
        if source.export is not target.export:
            raise OSError(errno.EXDEV, "another export")
        export = source.export
        with self.lock:
            self._check_writable(source)
            here, old, _ = export.locate(source.identity)
            there, before = export.folder(target.identity)
            export.check_new(there, target.identity, name)
            os.link(old, name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
            found = export.child(there, target.identity, name)
            self._tell(found)
            return xdr.u32(OK) + self._post(export, found, call.caller) + self._wcc(target, before, call.caller)

    # Contents

    def read(self, call: Call) -> Results:
        target, offset, count = self._target(call), call.arguments.u64(), call.arguments.u32()
        with self.lock:
            file = target.export.open_file(target.identity, write=False)
        data = os.pread(file.descriptor, min(count, LARGEST), _offset(offset))
        found = target.export.attributes_of(file.descriptor)
        about = self._post(target.export, found, call.caller)
        counts = xdr.u32(len(data)), xdr.flag(offset + len(data) >= found.size), xdr.u32(len(data))
        return xdr.u32(OK) + about + b"".join(counts), data, bytes(-len(data) % 4)

    def write(self, call: Call) -> bytes:
        target, offset, _, stable = self._target(call), *(call.arguments.u64(), *_two(call.arguments))
        data = call.arguments.data(LARGEST)
        with self.lock:
            self._check_writable(target)
            file = target.export.open_file(target.identity, write=True)
        before = target.export.attributes_of(file.descriptor)
        written = os.pwrite(file.descriptor, data, _offset(offset))
        if stable != UNSTABLE:
            os.fsync(file.descriptor)
        after = target.export.attributes_of(file.descriptor)
        self._tell(after)
        return (
            xdr.u32(OK)
            + self._change(target.export, before, after, call.caller)
            + xdr.u32(written)
            + xdr.u32(stable)
            + self.verifier
        )

    def commit(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            file = target.export.open_file(target.identity, write=False)
        os.fsync(file.descriptor)
        found = target.export.attributes_of(file.descriptor)
        return xdr.u32(OK) + _ABSENT + self._post(target.export, found, call.caller) + self.verifier

    # Folders

    def readdir(self, call: Call) -> bytes:
        target, cookie = self._target(call), call.arguments.u64()
        call.arguments.fixed(8)
        room = min(call.arguments.u32(), _LISTING)
        return self._listed(call, target, cookie, room, self._plain)

    def readdirplus(self, call: Call) -> bytes:
        target, cookie = self._target(call), call.arguments.u64()
        call.arguments.fixed(8)
        call.arguments.u32()
        room = min(call.arguments.u32(), _LISTING)
        return self._listed(call, target, cookie, room, self._full)

    # The file system

    def fsstat(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            folder, _, found = target.export.locate(target.identity)
            of = os.fstatvfs(folder)
        sizes = (of.f_blocks * of.f_frsize, of.f_bfree * of.f_frsize, of.f_bavail * of.f_frsize)
        files = (of.f_files, of.f_ffree, of.f_favail)
        return (
            xdr.u32(OK)
            + self._post(target.export, found, call.caller)
            + b"".join(map(xdr.u64, (*sizes, *files)))
            + xdr.u32(0)
        )

    def fsinfo(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            found = target.export.find(target.identity)
        # Hard links, symbolic links, the same limits everywhere, and times that can be set.
        properties = 1 | 2 | 8 | 16
        return (
            xdr.u32(OK)
            + self._post(target.export, found, call.caller)
            + b"".join(map(xdr.u32, (LARGEST, LARGEST, 4096, LARGEST, LARGEST, 4096, _LISTING)))
            + xdr.u64((1 << 63) - 1)
            + struct.pack(">III", 0, 1, properties)
        )

    def pathconf(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            found = target.export.find(target.identity)
        # A name that is too long is an error, nobody gives files away, letter case is kept, and matters on Linux.
        flags = (True, True, False, True)
        return (
            xdr.u32(OK)
            + self._post(target.export, found, call.caller)
            + struct.pack(">II", 32000, _NAME)
            + b"".join(map(xdr.flag, flags))
        )

    # Parts of them

    def _guarded(self, procedure: Procedure, failed: bytes, *, once: bool, changes: bool) -> Procedure:
        def answered(call: Call) -> Results:
            try:
                return procedure(call)
            except Refused as error:
                return xdr.u32(error.status) + failed
            except BadHandle:
                return xdr.u32(BADHANDLE) + failed
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    self._free()
                return xdr.u32(_ERRORS.get(error.errno or 0, IO)) + failed

        def announced(call: Call) -> Results:
            with self.changes.working() if self.changes else contextlib.nullcontext():
                return answered(call)

        def answered_once(call: Call) -> Results:
            digest = hashlib.blake2b(call.raw, digest_size=16).digest()
            with self.lock:
                if (known := self.handles.answer(digest)) is not None:
                    return known
                with self.handles.at_once():
                    reply = announced(call)
                    if isinstance(reply, bytes) and reply[:4] == xdr.u32(OK):
                        self.handles.note_answer(digest, reply)
                return reply

        return answered_once if once else announced if changes else answered

    def _tell(self, found: Attributes) -> None:
        if self.changes:
            self.changes.changed(found)

    def _tell_removal(self, target: Target, name: bytes) -> None:
        if self.changes:
            self.changes.removed(target.identity, name)

    def _free(self) -> None:
        """The guest asks again (JUKEBOX), and finds descriptors."""
        with self.lock:
            for export in self.exports.values():
                export.free()

    def _target(self, call: Call) -> Target:
        mark, identity = self.handles.unseal(call.arguments.opaque(_HANDLE))
        if (export := self.exports.get(mark)) is None:
            raise Refused(STALE)
        return Target(export, identity)

    def _check_writable(self, target: Target) -> None:
        if target.export.read_only:
            raise OSError(errno.EROFS, "shared for reading")

    def _made(self, call: Call, target: Target, name: bytes, make: Callable[[int], None]) -> bytes:
        export = target.export
        with self.lock:
            self._check_writable(target)
            folder, before = export.folder(target.identity)
            export.check_new(folder, target.identity, name)
            make(folder)
            found = export.child(folder, target.identity, name)
            self._tell(found)
            return (
                xdr.u32(OK)
                + xdr.flag(True)
                + xdr.opaque(self.handle(export, found.identity))
                + self._post(export, found, call.caller)
                + self._wcc(target, before, call.caller)
            )

    def _removed(self, call: Call, remove: Callable[[int, bytes], None]) -> bytes:
        target, name = self._target(call), new_name(call.arguments)
        export = target.export
        with self.lock:
            self._check_writable(target)
            folder, before = export.folder(target.identity)
            gone = export.child(folder, target.identity, name)
            export.check_may_go(gone)
            remove(folder, name)
            self._tell_removal(target, name)
            export.forget(gone)
            return xdr.u32(OK) + self._wcc(target, before, call.caller)

    def _set(self, target: Target, found: Attributes, wanted: Wanted) -> None:
        if wanted.size is not None:
            file = target.export.open_file(target.identity, write=True)
            os.ftruncate(file.descriptor, _offset(wanted.size))
        if wanted.mode is None and wanted.accessed is None and wanted.modified is None:
            return
        folder, name, _ = target.export.locate(target.identity)
        if wanted.mode is not None:
            target.export.set_mode(folder, name, found, stat.S_IMODE(wanted.mode))
        _set_times(folder, name, found, wanted)

    def _listed(
        self,
        call: Call,
        target: Target,
        cookie: int,
        room: int,
        entry: Callable[[Call, Export, Attributes, bytes, int], bytes],
    ) -> bytes:
        export = target.export
        with self.lock, self.handles.at_once():
            folder, own = export.folder(target.identity)
            parts = [xdr.u32(OK), self._post(export, own, call.caller), bytes(8)]
            left = room - sum(map(len, parts)) - 8
            done = True
            for place, name in [*_dots(cookie), *export.listing(target.identity, cookie if cookie > 2 else 0)]:
                try:
                    found = self._entry(export, folder, own, name)
                except OSError:
                    continue  # removed meanwhile
                part = entry(call, export, found, name, place)
                if (left := left - len(part)) < 0:
                    done = False
                    break
                parts.append(part)
        if not done and len(parts) == 3:
            raise Refused(TOOSMALL)
        return b"".join((*parts, _ABSENT, xdr.flag(done)))

    def _entry(self, export: Export, folder: int, own: Attributes, name: bytes) -> Attributes:
        if name == b".":
            return own
        if name == b"..":
            return export.find(export.parent(own.identity))
        # One file system whose server is gone must not keep the folder that it is mounted in from being listed.
        return export.child(folder, own.identity, name, waits=False)

    def _plain(self, call: Call, export: Export, found: Attributes, name: bytes, cookie: int) -> bytes:
        return b"".join((_TRUE, xdr.u64(_file_id(export, found)), xdr.opaque(name), xdr.u64(cookie)))

    def _full(self, call: Call, export: Export, found: Attributes, name: bytes, cookie: int) -> bytes:
        attributes = self._fattr(export, found, call.caller)
        handle = self.handle(export, found.identity)
        plain = self._plain(call, export, found, name, cookie)
        return b"".join((plain, _TRUE, attributes, _TRUE, xdr.opaque(handle)))

    def _wcc(self, target: Target, before: Attributes, caller: Caller) -> bytes:
        """The attributes that a file had, and has: what the guest knew before is what it may go on trusting."""
        after = target.export.find(target.identity)
        self._tell(after)
        return self._change(target.export, before, after, caller)

    def _change(self, export: Export, before: Attributes, after: Attributes, caller: Caller) -> bytes:
        return (
            xdr.flag(True)
            + xdr.u64(before.size)
            + struct.pack(">IIII", *_split(before.modified), *_split(before.changed))
            + self._post(export, after, caller)
        )

    def _post(self, export: Export, found: Attributes, caller: Caller) -> bytes:
        return _TRUE + self._fattr(export, found, caller)

    def _fattr(self, export: Export, found: Attributes, caller: Caller) -> bytes:
        mode, links, uid, _, size, used, identity, accessed, modified, changed, device, _ = found
        uid, gid = (caller.uid, caller.gid) if uid == self.uid else (_NOBODY, _NOBODY)
        # Spelled out: it is done for each file of a listing.
        return _FATTR.pack(
            _TYPES.get(mode & 0o170000, 1),
            mode & 0o7777,
            links,
            uid,
            gid,
            size,
            used,
            *device,
            export.number,
            identity.inode if identity.device == export.number else _file_id(export, found),
            accessed // _SECOND & 0xFFFFFFFF,
            accessed % _SECOND,
            modified // _SECOND & 0xFFFFFFFF,
            modified % _SECOND,
            changed // _SECOND & 0xFFFFFFFF,
            changed % _SECOND,
        )


def boot_verifier() -> bytes:
    """What is written survives this process, in the host's memory, and not the host's next boot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        import psutil

        boot = str(psutil.boot_time()).encode()
    return hashlib.blake2b(boot, digest_size=8).digest()


def _file_id(export: Export, found: Attributes) -> int:
    return attributes.file_id(export.top, found.identity)


def _dots(cookie: int) -> list[tuple[int, bytes]]:
    return [(place, name) for place, name in ((1, b"."), (2, b"..")) if place > cookie]


def name_of(arguments: xdr.Reader) -> bytes:
    name = arguments.opaque(_PATH)
    if len(name) > _NAME:
        raise OSError(errno.ENAMETOOLONG, "too long")
    if not name or b"/" in name or b"\0" in name:
        raise Refused(ACCES)
    return name


def new_name(arguments: xdr.Reader) -> bytes:
    if (name := name_of(arguments)) in {b".", b".."}:
        raise Refused(EXIST if name == b"." else INVAL)
    return name


def _two(arguments: xdr.Reader) -> tuple[int, int]:
    return arguments.u32(), arguments.u32()


def _offset(value: int) -> int:
    if value >= 1 << 63:
        raise OSError(errno.EFBIG, "too far")
    return value


def _time(arguments: xdr.Reader) -> int:
    seconds, nanoseconds = _two(arguments)
    return seconds * _SECOND + nanoseconds


def _split(nanoseconds: int) -> tuple[int, int]:
    seconds, rest = divmod(nanoseconds, _SECOND)
    return seconds & 0xFFFFFFFF, rest


def _wanted(arguments: xdr.Reader) -> Wanted:
    mode = arguments.u32() if arguments.flag() else None
    for _ in ("uid", "gid"):
        if arguments.flag():
            arguments.u32()
    size = arguments.u64() if arguments.flag() else None
    return Wanted(mode, size, _wanted_time(arguments), _wanted_time(arguments))


def _wanted_time(arguments: xdr.Reader) -> int | None:
    how = arguments.u32()
    if how > 2:
        raise xdr.Garbage("no way of setting a time")
    return _time(arguments) if how == 2 else time.time_ns() if how == 1 else None


def _exclusive_mark(verifier: bytes) -> Wanted:
    """The guest's mark of a file that it is making goes into the file's times, which it sets next (RFC 1813, 3.3.8)."""
    first, second = struct.unpack(">II", verifier)
    return Wanted(None, None, (first & 0x7FFFFFFF) * _SECOND, (second & 0x7FFFFFFF) * _SECOND)


def _set_times(folder: int, name: bytes, found: Attributes, wanted: Wanted) -> None:
    if wanted.accessed is None and wanted.modified is None:
        return
    accessed = found.accessed if wanted.accessed is None else wanted.accessed
    modified = found.modified if wanted.modified is None else wanted.modified
    os.utime(name, ns=(accessed, modified), dir_fd=folder, follow_symlinks=False)


def _allowed(folder: int, name: bytes, found: Attributes) -> int:
    """What the host's user may do, by modes and ACLs."""
    if stat.S_ISLNK(found.mode):
        return READ_

    def may(mode: int) -> bool:
        return os.access(name, mode, dir_fd=folder, effective_ids=True)

    allowed = READ_ if may(os.R_OK) else 0
    if may(os.W_OK):
        allowed |= MODIFY | EXTEND | (DELETE if found.is_folder else 0)
    if may(os.X_OK):
        allowed |= LOOKUP_ if found.is_folder else EXECUTE
    return allowed

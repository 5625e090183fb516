"""A small NFSv3 client: each procedure of RFC 1813 as a method, over a connection to a server that runs in a thread."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from machine.folders import mount_spec, mountd, nfs3, rpc, server, xdr

UNSET = bytes(4)


class NfsError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True)
class Attributes:
    type: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    used: int
    rdev: tuple[int, int]
    fsid: int
    fileid: int
    accessed: tuple[int, int]
    modified: tuple[int, int]
    changed: tuple[int, int]


@dataclass(frozen=True)
class Entry:
    name: bytes
    cookie: int
    fileid: int
    attributes: Attributes | None = None
    handle: bytes = b""


@dataclass(frozen=True)
class Set:
    """Attributes to set; "now" for a time is the server's."""

    mode: int | None = None
    uid: int | None = None
    size: int | None = None
    accessed: tuple[int, int] | str | None = None
    modified: tuple[int, int] | str | None = None

    def pack(self) -> bytes:
        mode, uid = (_optional(value, xdr.u32) for value in (self.mode, self.uid))
        times = b"".join(map(_wanted_time, (self.accessed, self.modified)))
        return mode + uid + _optional(self.uid, xdr.u32) + _optional(self.size, xdr.u64) + times


def _optional(value: int | None, pack: object) -> bytes:
    assert callable(pack)
    return UNSET if value is None else xdr.flag(True) + pack(value)


def _wanted_time(value: tuple[int, int] | str | None) -> bytes:
    if value is None:
        return UNSET
    return xdr.u32(1) if isinstance(value, str) else xdr.u32(2) + struct.pack(">II", *value)


@dataclass
class Client:
    """A guest's connection. uid, gid: who asks."""

    connection: socket.socket
    uid: int = 0
    gid: int = 0
    xids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    replies: Iterator[memoryview] = field(init=False)

    def __post_init__(self) -> None:
        self.replies = rpc.records(self.connection)

    def message(self, program: int, version: int, procedure: int, arguments: bytes, xid: int | None = None) -> bytes:
        credentials = struct.pack(">I", 7) + xdr.opaque(b"guest") + struct.pack(">III", self.uid, self.gid, 0)
        head = struct.pack(">IIIIII", next(self.xids) if xid is None else xid, 0, 2, program, version, procedure)
        return head + xdr.u32(rpc.AUTH_SYS) + xdr.opaque(credentials) + bytes(8) + arguments

    def send(self, message: bytes) -> None:
        self.connection.sendall(rpc.record(message))

    def receive(self) -> tuple[int, int, xdr.Reader]:
        """xid, state of acceptance, results."""
        reader = xdr.Reader(next(self.replies))
        xid, kind, denied = reader.u32(), reader.u32(), reader.u32()
        assert (kind, denied) == (1, 0)
        reader.u32()
        reader.opaque(400)
        return xid, reader.u32(), reader

    def call(self, program: int, version: int, procedure: int, arguments: bytes = b"") -> tuple[int, xdr.Reader]:
        self.send(self.message(program, version, procedure, arguments))
        _, state, reader = self.receive()
        return state, reader

    def nfs(self, procedure: int, arguments: bytes, xid: int | None = None) -> xdr.Reader:
        """The results after the status. Raises NfsError."""
        self.send(self.message(nfs3.PROGRAM, nfs3.VERSION, procedure, arguments, xid))
        _, state, reader = self.receive()
        assert state == rpc.SUCCESS, state
        if status := reader.u32():
            raise NfsError(status)
        return reader

    def mount(self, path: Path | str) -> bytes:
        state, reader = self.call(mountd.PROGRAM, mountd.VERSION, mountd.MNT, xdr.opaque(str(path).encode()))
        assert state == rpc.SUCCESS
        if status := reader.u32():
            raise NfsError(status)
        handle = reader.opaque(64)
        assert [reader.u32() for _ in range(2)] == [1, rpc.AUTH_SYS]
        return handle

    def getattr(self, handle: bytes) -> Attributes:
        return attributes(self.nfs(nfs3.GETATTR, xdr.opaque(handle)))

    def setattr(self, handle: bytes, wanted: Set, guard: tuple[int, int] | None = None) -> None:
        check = UNSET if guard is None else xdr.flag(True) + struct.pack(">II", *guard)
        self.nfs(nfs3.SETATTR, xdr.opaque(handle) + wanted.pack() + check)

    def lookup(self, folder: bytes, name: bytes) -> tuple[bytes, Attributes]:
        reader = self.nfs(nfs3.LOOKUP, xdr.opaque(folder) + xdr.opaque(name))
        handle, found = reader.opaque(64), post(reader)
        assert found
        return handle, found

    def walk(self, folder: bytes, *names: str) -> bytes:
        for name in names:
            folder = self.lookup(folder, name.encode())[0]
        return folder

    def access(self, handle: bytes, asked_for: int = 0x3F) -> int:
        reader = self.nfs(nfs3.ACCESS, xdr.opaque(handle) + xdr.u32(asked_for))
        post(reader)
        return reader.u32()

    def readlink(self, handle: bytes) -> bytes:
        reader = self.nfs(nfs3.READLINK, xdr.opaque(handle))
        post(reader)
        return reader.opaque(4096)

    def read(self, handle: bytes, offset: int = 0, count: int = 1 << 20) -> tuple[bytes, bool]:
        reader = self.nfs(nfs3.READ, xdr.opaque(handle) + xdr.u64(offset) + xdr.u32(count))
        post(reader)
        reader.u32()
        end = reader.flag()
        return reader.opaque(1 << 20), end

    def write(self, handle: bytes, data: bytes, offset: int = 0, stable: int = nfs3.UNSTABLE) -> tuple[int, bytes]:
        """How much was written, and the verifier."""
        head = xdr.opaque(handle) + xdr.u64(offset) + xdr.u32(len(data)) + xdr.u32(stable)
        reader = self.nfs(nfs3.WRITE, head + xdr.opaque(data))
        wcc(reader)
        written = reader.u32()
        assert reader.u32() == stable
        return written, reader.fixed(8)

    def commit(self, handle: bytes) -> bytes:
        reader = self.nfs(nfs3.COMMIT, xdr.opaque(handle) + xdr.u64(0) + xdr.u32(0))
        wcc(reader)
        return reader.fixed(8)

    def create(
        self,
        folder: bytes,
        name: bytes,
        wanted: Set = Set(mode=0o644),
        how: int = nfs3.UNCHECKED,
        xid: int | None = None,
    ) -> bytes:
        arguments = xdr.opaque(folder) + xdr.opaque(name) + xdr.u32(how) + wanted.pack()
        return self._made(self.nfs(nfs3.CREATE, arguments, xid))

    def create_exclusively(self, folder: bytes, name: bytes, verifier: bytes) -> bytes:
        arguments = xdr.opaque(folder) + xdr.opaque(name) + xdr.u32(nfs3.EXCLUSIVE) + verifier
        return self._made(self.nfs(nfs3.CREATE, arguments))

    def mkdir(self, folder: bytes, name: bytes, mode: int = 0o755) -> bytes:
        return self._made(self.nfs(nfs3.MKDIR, xdr.opaque(folder) + xdr.opaque(name) + Set(mode=mode).pack()))

    def symlink(self, folder: bytes, name: bytes, text: bytes) -> bytes:
        arguments = xdr.opaque(folder) + xdr.opaque(name) + Set().pack() + xdr.opaque(text)
        return self._made(self.nfs(nfs3.SYMLINK, arguments))

    def mknod(self, folder: bytes, name: bytes) -> None:
        self.nfs(nfs3.MKNOD, xdr.opaque(folder) + xdr.opaque(name) + xdr.u32(7) + Set(mode=0o600).pack())

    def remove(self, folder: bytes, name: bytes, xid: int | None = None) -> None:
        wcc(self.nfs(nfs3.REMOVE, xdr.opaque(folder) + xdr.opaque(name), xid))

    def rmdir(self, folder: bytes, name: bytes) -> None:
        wcc(self.nfs(nfs3.RMDIR, xdr.opaque(folder) + xdr.opaque(name)))

    def rename(self, folder: bytes, name: bytes, target: bytes, new: bytes) -> None:
        arguments = xdr.opaque(folder) + xdr.opaque(name) + xdr.opaque(target) + xdr.opaque(new)
        reader = self.nfs(nfs3.RENAME, arguments)
        wcc(reader)
        wcc(reader)

    def link(self, handle: bytes, folder: bytes, name: bytes) -> None:
        reader = self.nfs(nfs3.LINK, xdr.opaque(handle) + xdr.opaque(folder) + xdr.opaque(name))
        post(reader)
        wcc(reader)

    def readdir(self, folder: bytes, cookie: int = 0, room: int = 4096) -> tuple[list[Entry], bool]:
        reader = self.nfs(nfs3.READDIR, xdr.opaque(folder) + xdr.u64(cookie) + bytes(8) + xdr.u32(room))
        return self._listed(reader, plus=False)

    def readdirplus(self, folder: bytes, cookie: int = 0, room: int = 64 << 10) -> tuple[list[Entry], bool]:
        arguments = xdr.opaque(folder) + xdr.u64(cookie) + bytes(8) + xdr.u32(room // 4) + xdr.u32(room)
        return self._listed(self.nfs(nfs3.READDIRPLUS, arguments), plus=True)

    def names(self, folder: bytes, room: int = 64 << 10) -> list[bytes]:
        """All names but `.` and `..`, by as many calls as that takes."""
        names: list[bytes] = []
        cookie, end = 0, False
        while not end:
            entries, end = self.readdirplus(folder, cookie, room)
            names += [entry.name for entry in entries]
            cookie = entries[-1].cookie if entries else cookie
        return [name for name in names if name not in {b".", b".."}]

    def fsstat(self, handle: bytes) -> tuple[int, ...]:
        reader = self.nfs(nfs3.FSSTAT, xdr.opaque(handle))
        post(reader)
        return tuple(reader.u64() for _ in range(6))

    def fsinfo(self, handle: bytes) -> tuple[int, ...]:
        """rtmax, rtpref, rtmult, wtmax, wtpref, wtmult, dtpref, properties."""
        reader = self.nfs(nfs3.FSINFO, xdr.opaque(handle))
        post(reader)
        sizes = [reader.u32() for _ in range(7)]
        reader.fixed(16)
        return (*sizes, reader.u32())

    def pathconf(self, handle: bytes) -> tuple[int, int]:
        """linkmax, name_max."""
        reader = self.nfs(nfs3.PATHCONF, xdr.opaque(handle))
        post(reader)
        return reader.u32(), reader.u32()

    def _made(self, reader: xdr.Reader) -> bytes:
        assert reader.flag()
        handle = reader.opaque(64)
        post(reader)
        wcc(reader)
        return handle

    def _listed(self, reader: xdr.Reader, *, plus: bool) -> tuple[list[Entry], bool]:
        post(reader)
        reader.fixed(8)
        entries = []
        while reader.flag():
            fileid, name, cookie = reader.u64(), reader.opaque(255), reader.u64()
            found = post(reader) if plus else None
            handle = reader.opaque(64) if plus and reader.flag() else b""
            entries.append(Entry(name, cookie, fileid, found, handle))
        return entries, reader.flag()


def attributes(reader: xdr.Reader) -> Attributes:
    kind, mode, links, uid, gid = (reader.u32() for _ in range(5))
    size, used = reader.u64(), reader.u64()
    rdev = (reader.u32(), reader.u32())
    fsid, fileid = reader.u64(), reader.u64()
    times = [(reader.u32(), reader.u32()) for _ in range(3)]
    return Attributes(kind, mode, links, uid, gid, size, used, rdev, fsid, fileid, times[0], times[1], times[2])


def post(reader: xdr.Reader) -> Attributes | None:
    return attributes(reader) if reader.flag() else None


def wcc(reader: xdr.Reader) -> Attributes | None:
    if reader.flag():
        reader.fixed(24)
    return post(reader)


class Served:
    """Folders that are served, in a thread of this process, as a machine's are in a process of its own.

    mounts: as --mount takes them; home: where the handles are kept; hidden: what isn't shown; ring: where it tells
    of the guest's changes.
    """

    def __init__(self, home: Path, *mounts: str, hidden: tuple[Path, ...] = (), ring: int | None = None) -> None:
        self.home = home
        self.folders = [mount_spec.parse(text) for text in mounts]
        self.hidden = hidden
        self.ring = ring

    def __enter__(self) -> Client:
        ours, theirs = socket.socketpair()
        ours.settimeout(120)
        self._client = ours
        self.thread = threading.Thread(target=self._serve, args=(theirs,))
        self.thread.start()
        return Client(ours)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self.thread.join(120)
        assert not self.thread.is_alive()

    def _serve(self, connection: socket.socket) -> None:
        served = server.programs(self.folders, self.home, list(self.hidden), self.ring)
        # What the stream's end is called goes into the log of the real process.
        with connection, served as programs, contextlib.suppress(rpc.Broken, OSError):
            server.Server(connection, programs).run()

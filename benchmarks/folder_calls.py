"""What the server of shared folders costs per call, without a machine: a guest's calls, one after the other.

The server is the process that QEMU starts, with a socket as its standard input. Its processor time is its user's and
the system's; of what the calls wait for, and of the guest, nothing is in it.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.measure import Report
from machine import spec
from machine.folders import installation, mountd, nfs3, rpc, xdr
from machine.spec import Machine

FILES, BYTES, BLOCKS = 1000, 2000, 2000
BLOCK, PAGE, BIG = 1 << 20, 4096, 64 << 20
COMMAND = "benchmarks/folder_calls.py"
_MODE = xdr.flag(True) + xdr.u32(0o644) + bytes(20)
_CREDENTIALS = xdr.u32(rpc.AUTH_SYS) + xdr.opaque(struct.pack(">II4xIII", 0, 0, 0, 0, 0)) + bytes(8)


class Guest:
    """A connection to a server; each call waits for its answer."""

    def __init__(self, connection: socket.socket, server: psutil.Process) -> None:
        self.connection = connection
        self.server = server
        self.calls = 0
        self._replies = rpc.records(connection)

    def ask(self, program: int, procedure: int, arguments: bytes) -> xdr.Reader:
        """The results after the status, which must be OK."""
        self.calls += 1
        head = struct.pack(">IIIIII", self.calls, rpc.CALL, rpc.VERSION, program, 3, procedure)
        self.connection.sendall(rpc.record(head + _CREDENTIALS + arguments))
        reader = xdr.Reader(next(self._replies))
        reader.view(24)
        if status := reader.u32():
            raise RuntimeError(f"the procedure {procedure} was answered with the status {status}")
        return reader

    def nfs(self, procedure: int, arguments: bytes) -> xdr.Reader:
        return self.ask(nfs3.PROGRAM, procedure, arguments)

    def processor_time(self) -> float:
        """Seconds of the server."""
        return sum(self.server.cpu_times()[:2])

    def made(self, folder: bytes, name: bytes) -> bytes:
        reader = self.nfs(nfs3.CREATE, xdr.opaque(folder) + xdr.opaque(name) + xdr.u32(nfs3.UNCHECKED) + _MODE)
        reader.u32()
        return reader.opaque(64)

    def found(self, folder: bytes, name: bytes) -> bytes:
        return self.nfs(nfs3.LOOKUP, xdr.opaque(folder) + xdr.opaque(name)).opaque(64)

    def read(self, file: bytes, offset: int, size: int) -> xdr.Reader:
        return self.nfs(nfs3.READ, xdr.opaque(file) + struct.pack(">QI", offset, size))

    def written(self, file: bytes, offset: int, data: bytes) -> None:
        place = struct.pack(">QII", offset, len(data), nfs3.UNSTABLE)
        self.nfs(nfs3.WRITE, xdr.opaque(file) + place + xdr.opaque(data))


def measure(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="mb") as top, _served(Path(top)) as (guest, folder):
        total = [0.0, 0]
        for name, job in _jobs(guest, folder).items():
            before, began = guest.calls, guest.processor_time()
            for _ in job:
                pass
            calls, used = guest.calls - before, guest.processor_time() - began
            report.add(f"{name}: the server's processor time per call", [used / calls * 1e6], COMMAND, unit="us")
            if name in _SMALL:
                total = [total[0] + used, total[1] + calls]
    report.add(
        "the same of all calls for small files", [total[0] / total[1] * 1e6], COMMAND, unit="us", goal="at most 150 us"
    )


_SMALL = ("make and write small files", "look up and stat them", "read them", "list them", "remove them")


def _jobs(guest: Guest, folder: bytes) -> dict[str, Iterator[object]]:
    """What is to be done, a call or a few at each step; calls as Linux makes them."""
    names = [f"file {number}".encode() for number in range(FILES)]
    files: list[bytes] = []
    chance = random.Random(1)

    def make() -> Iterator[object]:
        for name in names:
            files.append(guest.made(folder, name))
            guest.written(files[-1], 0, os.urandom(BYTES))
            yield guest.nfs(nfs3.COMMIT, xdr.opaque(files[-1]) + bytes(12))

    def stat() -> Iterator[object]:
        for name in names:
            guest.found(folder, name)
            yield guest.nfs(nfs3.GETATTR, xdr.opaque(folder))

    def read() -> Iterator[object]:
        for file in files:
            guest.nfs(nfs3.GETATTR, xdr.opaque(file))
            guest.nfs(nfs3.ACCESS, xdr.opaque(file) + xdr.u32(0x3F))
            yield guest.read(file, 0, PAGE)

    def list_() -> Iterator[object]:
        for _ in range(20):
            cookie = done = 0
            while not done:
                reader = guest.nfs(nfs3.READDIRPLUS, xdr.opaque(folder) + struct.pack(">Q8xII", cookie, PAGE, 8 * PAGE))
                cookie, done = _last(reader)
                yield None

    def random_pages(file: bytes) -> Iterator[object]:
        data = os.urandom(PAGE)
        for _ in range(BLOCKS):
            place = chance.randrange(BIG // PAGE) * PAGE
            guest.written(file, place, data)
            yield guest.read(file, place, PAGE)

    def whole(file: bytes) -> Iterator[object]:
        data = os.urandom(BLOCK)
        for place in range(0, BIG, BLOCK):
            guest.written(file, place, data)
            yield guest.read(file, place, BLOCK)

    def remove() -> Iterator[object]:
        for name in names:
            yield guest.nfs(nfs3.REMOVE, xdr.opaque(folder) + xdr.opaque(name))

    big = guest.made(folder, b"big")
    return {
        "make and write small files": make(),
        "look up and stat them": stat(),
        "read them": read(),
        "list them": list_(),
        "write and read 1 MiB": whole(big),
        "write and read 4 KiB at random": random_pages(big),
        "remove them": remove(),
    }


def _last(reader: xdr.Reader) -> tuple[int, bool]:
    """The cookie of the last entry of a listing, and whether it is the folder's last."""
    cookie = 0
    assert reader.flag()
    reader.view(84 + 8)
    while reader.flag():
        reader.u64()
        reader.opaque(255)
        cookie = reader.u64()
        assert reader.flag()
        reader.view(84)
        assert reader.flag()
        reader.opaque(64)
    return cookie, reader.flag()


@contextlib.contextmanager
def _served(top: Path) -> Iterator[tuple[Guest, bytes]]:
    """The guest of a machine that isn't there, and the handle of its folder."""
    folder, shared = top / "machines" / "dev", top / "shared"
    folder.mkdir(parents=True)
    shared.mkdir()
    machine = Machine("dev", "qemu", "", "", "", 1024, 1, 1024, mounts=(str(shared.resolve()),))
    (folder / "machine.json").write_text(spec.dumps(machine), encoding="utf-8")
    ours, its = socket.socketpair()
    with ours, subprocess.Popen(installation.server(folder), stdin=its.fileno()) as process:
        its.close()
        try:
            guest = Guest(ours, psutil.Process(process.pid))
            mounted = guest.ask(mountd.PROGRAM, mountd.MNT, xdr.opaque(os.fsencode(shared.resolve())))
            yield guest, mounted.opaque(64)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(30)


if __name__ == "__main__":
    measure(Report("folder calls"))

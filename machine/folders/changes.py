"""What the guest changed itself, for the helper: of that it must not be told again.

A file in the machine's folder that both have mapped. Each server writes into a ring of its own, without a system call;
the helper reads when the host's system tells of changes. An entry says which inode has which time of change since, or
which name was taken out of which folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from machine.folders.attributes import Attributes, Identity

FILE = "folders.changes"
RINGS = 8
# Entries of a ring: more than the guest can change while the helper looks away for a second.
_ENTRIES = 4096
_ENTRY = struct.Struct("=QQ")
# How many were written; how many calls began that write some, and how many of them ended.
_HEAD = struct.Struct("=QQQ")
_RING = _HEAD.size + _ENTRIES * _ENTRY.size
_SIZE = RINGS * _RING
# Times of change lie below.
_REMOVED = 1 << 63
# Seconds for which the helper remembers an entry, and waits for a call that is at work.
_MEMORY = 30.0
_PATIENCE = 2.0
_LOOK = 0.005

Change = tuple[int, int]


def removal(inode: int, name: bytes) -> Change:
    """The entry for a name that was taken out of the folder with that inode."""
    digest = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
    return inode, _REMOVED | digest


class Head(NamedTuple):
    written: int
    begun: int
    ended: int


class Writer:
    """ring: this server's, below RINGS. Raises OSError when the file can't be made."""

    def __init__(self, machine_folder: Path, ring: int) -> None:
        self._map = _mapped(machine_folder)
        self._base = ring * _RING
        self._lock = threading.Lock()
        self._written, self._begun, _ = _HEAD.unpack_from(self._map, self._base)
        self._ended = self._begun  # the calls of a server that was killed, too
        self._put_head()

    def close(self) -> None:
        self._map.close()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around what changes something, until its entries are written."""
        with self._lock:
            self._begun += 1
            self._put_head()
        try:
            yield
        finally:
            with self._lock:
                self._ended += 1
                self._put_head()

    def changed(self, found: Attributes) -> None:
        self._put((found.identity.inode, found.changed))

    def removed(self, folder: Identity, name: bytes) -> None:
        self._put(removal(folder.inode, name))

    def _put(self, change: Change) -> None:
        with self._lock:
            place = self._base + _HEAD.size + self._written % _ENTRIES * _ENTRY.size
            _ENTRY.pack_into(self._map, place, *change)
            self._written += 1
            self._put_head()

    def _put_head(self) -> None:
        _HEAD.pack_into(self._map, self._base, self._written, self._begun, self._ended)


class Reader:
    """What all servers wrote since this was made."""

    def __init__(self, machine_folder: Path) -> None:
        self._map = _mapped(machine_folder)
        self._read = [self._head(ring).written for ring in range(RINGS)]
        self._known: dict[Change, float] = {}
        # The heads of rings whose servers were killed at work.
        self._dead: dict[int, Head] = {}

    def close(self) -> None:
        self._map.close()

    def wait(self) -> None:
        """Wait until what servers are at work on now is written; not until they rest.

        One that was killed never ends its call: it is waited for once.
        """
        deadline = time.monotonic() + _PATIENCE
        awaited = {ring: self._head(ring).begun for ring in range(RINGS)}
        while late := {ring: head for ring, begun in awaited.items() if (head := self._head(ring)).ended < begun}:
            if late.items() <= self._dead.items():
                return
            if time.monotonic() > deadline:
                self._dead = late
                return
            time.sleep(_LOOK)

    def update(self) -> None:
        """Read what is new, and forget what is old."""
        now = time.monotonic()
        for ring in range(RINGS):
            written = self._head(ring).written
            for number in range(max(self._read[ring], written - _ENTRIES), written):
                change = _ENTRY.unpack_from(self._map, ring * _RING + _HEAD.size + number % _ENTRIES * _ENTRY.size)
                self._known.pop(change, None)
                self._known[change] = now
            self._read[ring] = written
        while self._known and (oldest := next(iter(self._known))) and self._known[oldest] < now - _MEMORY:
            del self._known[oldest]

    def has(self, change: Change) -> bool:
        return change in self._known

    def take(self, change: Change) -> bool:
        """Whether there is that entry, which counts once."""
        return self._known.pop(change, None) is not None

    def _head(self, ring: int) -> Head:
        return Head(*_HEAD.unpack_from(self._map, ring * _RING))


def _mapped(machine_folder: Path) -> mmap.mmap:
    descriptor = os.open(machine_folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < _SIZE:
            os.pwrite(descriptor, bytes(_SIZE), 0)  # a hole that a full disk can't fill would kill who writes there
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)

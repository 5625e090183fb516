"""Linux tells which files of a tree change (inotify(7)): a watch on each folder, by the C library's own functions.

Not by the library `watchdog`: it hears of each file that is opened, holds what leaves the tree back for half a second,
says nothing when the kernel lost events, and watches nothing of a tree that has more folders than are allowed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
OVERFLOW, IGNORED, IS_FOLDER = 0x4000, 0x8000, 0x40000000
_WATCHED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_ONLY_FOLDERS, _NO_LINKS, _NO_REMOVED = 0x01000000, 0x02000000, 0x04000000
_HEAD = struct.Struct("iIII")
_BLOCK = 1 << 18
# Other programs of the user need watches, too (an editor): so much of what the system allows is left to them.
_SHARE = 2
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
# File systems that tell nothing of what others change, and whose server may not answer.
_REMOTE = ("fuse", "nfs", "cifs", "smb", "9p", "autofs", "afs", "ceph")


class Event(NamedTuple):
    """What happened to a name in a folder; inode: the folder's."""

    folder: bytes
    inode: int
    name: bytes
    mask: int

    @property
    def path(self) -> bytes:
        return self.folder + b"/" + self.name


class Inotify:
    """The watches. is_hidden: whether a path isn't to be watched, nor what lies in it.

    lost: folders that couldn't be watched, because the limit was reached.
    """

    def __init__(self, is_hidden: Callable[[bytes], bool]) -> None:
        self.is_hidden = is_hidden
        self.lost: set[bytes] = set()
        self._library = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.descriptor < 0:
            raise _error()
        self._folders: dict[int, tuple[bytes, int]] = {}
        self._watches: dict[bytes, int] = {}
        self._most = _limit() // _SHARE

    def __len__(self) -> int:
        return len(self._watches)

    def close(self) -> None:
        os.close(self.descriptor)

    def add(self, top: bytes, *, deep: bool = True) -> Iterator[Event]:
        """Watch a folder, and those in it; what was found in it, as if it had been made now: the folder came first."""
        waiting = deque([top])  # when the limit is reached, what lies deepest isn't watched
        mounted = _mounted()
        while waiting:
            folder = waiting.popleft()
            if (inode := self._watch(folder)) is None or not deep:
                continue
            try:
                with os.scandir(folder) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError:
                continue
            for name, is_folder in found:
                path = folder + b"/" + name
                if self.is_hidden(path):
                    continue
                yield Event(folder, inode, name, CREATE | (IS_FOLDER if is_folder else 0))
                if is_folder and path not in mounted:
                    waiting.append(path)

    def drop(self, top: bytes) -> None:
        """Watch a folder no more, nor those in it."""
        below = top + b"/"
        for path in [path for path in self._watches if path == top or path.startswith(below)]:
            watch = self._watches.pop(path)
            self._folders.pop(watch, None)
            self._library.inotify_rm_watch(self.descriptor, watch)
        self.lost = {path for path in self.lost if path != top and not path.startswith(below)}

    def read(self) -> Iterator[Event]:
        """What happened until now; folders that were made are watched from now on. For lost events: OVERFLOW."""
        with contextlib.suppress(BlockingIOError):
            while True:
                yield from self._parsed(os.read(self.descriptor, _BLOCK))

    def _parsed(self, block: bytes) -> Iterator[Event]:
        place = 0
        while place < len(block):
            watch, mask, _, length = _HEAD.unpack_from(block, place)
            name = block[place + _HEAD.size : place + _HEAD.size + length].rstrip(b"\0")
            place += _HEAD.size + length
            if mask & OVERFLOW:
                yield Event(b"", 0, b"", OVERFLOW)
            elif mask & IGNORED:
                self._forget(watch)
            elif name and (known := self._folders.get(watch)):
                yield from self._event(Event(*known, name, mask))

    def _event(self, event: Event) -> Iterator[Event]:
        if self.is_hidden(event.path):
            return
        yield event
        if not event.mask & IS_FOLDER:
            return
        if event.mask & (MOVED_FROM | DELETE):
            self.drop(event.path)
        elif event.mask & CREATE:
            yield from self.add(event.path)
        elif event.mask & MOVED_TO:
            for _ in self.add(event.path):
                pass

    def _watch(self, folder: bytes) -> int | None:
        """The inode of the folder, None where it can't be watched."""
        if folder not in self._watches and len(self._watches) >= self._most:
            self.lost.add(folder)
            return None
        watch = self._library.inotify_add_watch(
            self.descriptor, folder, _WATCHED | _ONLY_FOLDERS | _NO_LINKS | _NO_REMOVED
        )
        if watch < 0:
            if _error().errno == errno.ENOSPC:
                self.lost.add(folder)
            return None
        try:
            inode = os.lstat(folder).st_ino
        except OSError:
            inode = 0
        if (old := self._folders.get(watch)) and old[0] != folder:
            self._watches.pop(old[0], None)
        self._folders[watch] = (folder, inode)
        self._watches[folder] = watch
        return inode

    def _forget(self, watch: int) -> None:
        if (known := self._folders.pop(watch, None)) and self._watches.get(known[0]) == watch:
            del self._watches[known[0]]


def _limit() -> int:
    try:
        return int(_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 8192


def _mounted() -> set[bytes]:
    """Where file systems are mounted that tell nothing."""
    found: set[bytes] = set()
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        kind = words[words.index(b"-") + 1].decode()
        if kind.startswith(_REMOTE):
            found.add(words[4].decode("unicode_escape").encode("latin-1"))
    return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))

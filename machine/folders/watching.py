"""Tells programs in containers which files of a shared folder the host changed: part of the machine's helper.

Only of folders that running containers bind, and only while they do. A thread reads what the host's system tells
(`inotify`), another has the guest's own program repeat it there (`replay`). What the guest did itself is left out
(`changes`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine.errors import MachineError
from machine.folders import attributes, changes, inotify, mount_spec
from machine.folders.inotify import Event, Inotify
from machine.folders.player import Player, why
from machine.folders.trees import Tree
from machine.paths import MachineFolder

if TYPE_CHECKING:
    from machine.ssh.relay import Connection

# Seconds to gather events in: an editor makes several for one save, and the guest's own changes are noted meanwhile.
_GATHER = 0.04
# Seconds after which a connection that broke is made again.
_PAUSE = 1.0
# Changes that the guest hears of before it is asked whether it has come so far, and that wait at most.
_BATCH = 50
_MOST = 50_000
# The working directory of statx(2), which an absolute path doesn't need.
_HERE = -100
_NAMED = 3
_DEAF = "programs in containers don't hear of changes of shared files: {}"
_TAKES = inotify.DELETE | inotify.MOVED_FROM
_RENEWS = _TAKES | inotify.CREATE | inotify.MOVED_TO


class Watching:
    """warnings: sentences for `machine status`; changed: is called when there are others.

    Methods don't wait, and are for one thread.
    """

    def __init__(self, folder: MachineFolder, connection: Connection, changed: Callable[[], None]) -> None:
        self.folder = folder
        self.connection = connection
        self.changed = changed
        self._session: _Session | None = None
        self._trouble = ""

    @property
    def warnings(self) -> list[str]:
        if self._trouble:
            return [_DEAF.format(self._trouble)]
        return self._session.warnings() if self._session else []

    def bring_in_line(self, wanted: frozenset[Tree]) -> None:
        """Watch these, and nothing else. What fails is tried again the next time, and a warning."""
        self._trouble = ""
        if not wanted:
            self.close()
            return
        try:
            if self._session is None:
                hidden = mount_spec.hidden(self.folder.store)
                self._session = _Session(self.folder, self.connection, hidden, self.changed)
            self._session.aim(wanted)
        except (MachineError, OSError) as error:
            self._trouble = why(error)

    def close(self) -> None:
        if self._session:
            self._session.end()
        self._session = None


@dataclass
class _Pending:
    """What happened to a file since the guest heard of it.

    folder: the inode of the one that it lies in. made: it was new at first, else its name was there. renewed: it may be
    another file by now. went: it was removed itself, not with its folder.
    """

    folder: int
    name: bytes
    is_folder: bool
    made: bool
    renewed: bool = False
    went: bool = False


class _Session:
    """Two threads, from when there is something to watch until there isn't."""

    def __init__(
        self, folder: MachineFolder, connection: Connection, hidden: list[Path], changed: Callable[[], None]
    ) -> None:
        from machine.folders import installation

        hidden = [*hidden, *installation.folders()]
        paths = frozenset(os.fsencode(spelling) for path in hidden for spelling in (path, path.resolve()))
        self._inotify = Inotify(lambda path: path in paths)
        self._changes = changes.Reader(folder.path)
        self._player = Player(connection)
        self._changed = changed
        self._wanted: frozenset[Tree] = frozenset()
        self._watched: frozenset[Tree] = frozenset()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._ended = threading.Event()
        self._condition = threading.Condition()
        self._pending: dict[bytes, _Pending] = {}
        self._dropped = False
        self._lost: list[bytes] = []
        self._read_last = time.time_ns()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._tell)]

    def aim(self, wanted: frozenset[Tree]) -> None:
        """Watch these from now on."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._awake()
        with self._condition:
            self._condition.notify_all()
        while self._threads:
            self._threads.pop().start()

    def end(self) -> None:
        """The threads end soon, and close what they use."""
        self._stop()
        os.close(self._wake)
        self._player.close()

    def _stop(self) -> None:
        self._ended.set()
        self._awake()
        with self._condition:
            self._condition.notify_all()

    def warnings(self) -> list[str]:
        found = []
        if self._player.trouble:
            found.append(_DEAF.format(self._player.trouble))
        if lost := self._lost:
            more = f" and in {len(lost) - _NAMED} other folders" if len(lost) > _NAMED else ""
            names = ", ".join(os.fsdecode(path) for path in lost[:_NAMED])
            found.append(
                f"programs in containers don't hear of changes in {names}{more}: this computer's limit"
                " fs.inotify.max_user_watches is too low"
            )
        if self._dropped:
            found.append(f"more than {_MOST} shared files changed at once; programs in containers don't hear of all")
        return found

    def _awake(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it is awake, or has ended
            os.write(self._wake, b".")

    # The thread that reads

    def _read(self) -> None:
        import select

        while not self._ended.is_set():
            select.select([self._inotify.descriptor, self._woken], [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
            try:
                self._look()
            except Exception:  # a fault of ours; what happens next is told again
                traceback.print_exc()
                self._ended.wait(_PAUSE)
        self._inotify.close()
        os.close(self._woken)

    def _look(self) -> None:
        if self._wanted != self._watched:
            self._watch(self._wanted)
        self._gather(self._inotify.read())
        self._read_last = time.time_ns()
        if (lost := sorted(self._inotify.lost)) != self._lost:
            self._lost = lost
            self._changed()

    def _watch(self, wanted: frozenset[Tree]) -> None:
        for tree in self._watched - wanted:
            self._inotify.drop(tree.source)
        # One that is dropped may have had another in it that stays.
        for tree in wanted:
            for _ in self._inotify.add(tree.source, deep=not tree.name):
                pass
        self._watched = wanted

    def _gather(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.mask & inotify.OVERFLOW:
                self._gather(self._found_again(self._read_last))
                continue
            if not self._counts(event):
                continue
            with self._condition:
                self._note(event)
                self._condition.notify_all()

    def _counts(self, event: Event) -> bool:
        for tree in self._watched:
            if event.folder == tree.source and tree.name and event.name == tree.name:
                return True
            if not tree.name and (event.folder + b"/").startswith(tree.source + b"/"):
                return True
        return False

    def _note(self, event: Event) -> None:
        if (one := self._pending.get(event.path)) is None:
            if len(self._pending) >= _MOST:
                self._dropped = True
                return
            made = bool(event.mask & inotify.CREATE)
            one = _Pending(event.inode, event.name, bool(event.mask & inotify.IS_FOLDER), made)
            self._pending[event.path] = one
        one.renewed |= bool(event.mask & _RENEWS)
        one.went |= bool(event.mask & _TAKES)

    def _found_again(self, since: int) -> Iterator[Event]:
        """The kernel had no room for events: what changed since then, in nanoseconds, as far as it is there."""
        for tree in self._watched:
            for event in self._inotify.add(tree.source, deep=not tree.name):
                with contextlib.suppress(OSError):
                    if attributes.of(_HERE, event.path).changed >= since - int(1e9):
                        yield event

    # The thread that tells

    def _tell(self) -> None:
        """Whatever fails is tried again; a guest without the program is left alone."""
        waiting: dict[bytes, _Pending] = {}
        while not self._ended.is_set():
            try:
                if self._player.open():
                    self._changed()
                self._add_new(waiting, self._next(waits=not waiting))
                batch = list(itertools.islice(waiting.items(), _BATCH))
                if records := [record for path, one in batch if (record := self._record(path, one))]:
                    self._player.play(records)
                for path, _ in batch:
                    del waiting[path]
            except Exception as error:
                if not isinstance(error, MachineError | OSError):
                    traceback.print_exc()
                    waiting.clear()  # these may be what we fail at
                self._player.fail(error)
                self._changed()
                if self._player.is_missing:
                    self._stop()
                self._ended.wait(_PAUSE)
        self._changes.close()

    def _next(self, *, waits: bool) -> dict[bytes, _Pending]:
        """What happened, some moments after the first of it. Empty when the connection may have to be made anew."""
        with self._condition:
            if waits and not self._pending and not self._ended.is_set():
                self._condition.wait()
        if self._pending:
            self._ended.wait(_GATHER)
        with self._condition:
            found, self._pending = self._pending, {}
        return found

    def _add_new(self, waiting: dict[bytes, _Pending], pending: dict[bytes, _Pending]) -> None:
        """Add what the guest must be told of, without what it did itself."""
        if not pending:
            return
        # Whoever made a file what it is now has begun to: that is written when the wait ends.
        found = {path: _changed(path) for path in pending}
        self._changes.wait()
        self._changes.update()
        for path, new in pending.items():
            removed = self._changes.take(changes.removal(new.folder, new.name))
            if removed if (change := found[path]) is None else self._changes.has(change):
                continue
            if one := waiting.get(path):
                one.renewed |= new.renewed
                one.went |= new.went
            elif len(waiting) < _MOST:
                waiting[path] = new
            else:
                self._dropped = True

    def _tree_of(self, path: bytes) -> Tree | None:
        return next((tree for tree in self._watched if path.startswith(tree.source + b"/")), None)

    def _record(self, path: bytes, one: _Pending) -> bytes:
        """For the guest's program, see there; empty for what the guest need not hear of."""
        if (tree := self._tree_of(path)) is None:
            return b""
        target = tree.target + path[len(tree.source) :]
        try:
            found = attributes.of(_HERE, path)
        except OSError:
            if one.made or not one.went:  # made and removed at once
                return b""
            return (b"R " if one.is_folder else b"D ") + target
        if one.renewed:
            top = attributes.of(_HERE, tree.top).identity
            number = attributes.file_id(top, found.identity)
            return (b"K" if found.is_folder else b"C") + str(number).encode() + b" " + target
        return b"M " + target if found.is_file else b""


def _changed(path: bytes) -> changes.Change | None:
    """How a server writes what is there now; None where nothing is."""
    try:
        found = attributes.of(_HERE, path)
    except OSError:
        return None
    return found.identity.inode, found.changed

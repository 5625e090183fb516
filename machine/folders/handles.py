"""File handles: what the guest is given in the place of a path, and must mean the same as long as the machine lives.

A handle is made of the file's identity, and sealed with a key of this machine's, so that none can be guessed. An inode
can't be opened by its number without root's rights: a database in the machine's folder says in which folder, and under
which name, each was seen last. It outlives the server; it forgets nothing but what was removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from machine.folders.attributes import Identity

# Bytes: an export's mark, an identity, the seal. NFSv3 has room for 64.
MARK = 4
_IDENTITY = struct.Struct(">QQQ")
_SEAL = 16
SIZE = MARK + _IDENTITY.size + _SEAL
# So many places are remembered beside the database, also so many that it has no room for, and so many answers in it.
_MEMORY = 100_000
_UNWRITTEN = 10_000
_ANSWERS = 512
_PATIENCE = 10.0

Place = tuple[Identity, bytes]


class BadHandle(ValueError):
    """Not one that this machine was given."""


class Handles:
    """path: of the database, which is made when it isn't there, or can't be read any more.

    Not for several threads at once: who uses it, or an export that does, holds `lock`.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise  # a full disk, a lock: the key is there, and the guest's handles are good
            # Power failed while it was written. The guest finds its files again by their paths.
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._database = _opened(path)
        self._key = self._shared_key()
        self._places: dict[Identity, Place] = {}
        # What is to be written at the end of `at_once`: places, and files that are gone; answers.
        self._pending: dict[Identity, Place | None] | None = None
        self._replies: list[tuple[bytes, bytes]] = []
        # What found no room on a full disk: the guest must get at files to remove them. It is lost with this process.
        self._unwritten: dict[Identity, Place] = {}
        rows = self._database.execute("SELECT digest, reply FROM replies ORDER BY rowid DESC LIMIT ?", (_ANSWERS,))
        self._answers: dict[bytes, bytes] = dict(rows)

    def close(self) -> None:
        self._database.close()

    def seal(self, mark: bytes, identity: Identity) -> bytes:
        body = mark + _IDENTITY.pack(*identity)
        return body + self._sealed(body)

    def unseal(self, handle: bytes) -> tuple[bytes, Identity]:
        """The mark of the export that the handle belongs to, and the file. Raises BadHandle."""
        body, seal = handle[:-_SEAL], handle[-_SEAL:]
        if len(handle) != SIZE or not hmac.compare_digest(self._sealed(body), seal):
            raise BadHandle
        return body[:MARK], Identity(*_IDENTITY.unpack(body[MARK:]))

    def place(self, identity: Identity, *, anew: bool = False) -> Place | None:
        """The folder that a file was seen in, and its name. anew: another process may have seen it elsewhere since."""
        if not anew and (place := self._places.get(identity)):
            return place
        if place := self._unwritten.get(identity):
            return place
        row = self._database.execute(
            "SELECT parent, name FROM places WHERE identity = ?", (_IDENTITY.pack(*identity),)
        ).fetchone()
        if row is None:
            return None
        place = (Identity(*_IDENTITY.unpack(row[0])), row[1])
        self._remember(identity, place)
        return place

    def note(self, identity: Identity, parent: Identity, name: bytes) -> None:
        """Say where a file was seen; it is in the database when this returns."""
        place = (parent, name)
        if self._places.get(identity) == place:
            return
        if self._pending is not None:
            self._pending[identity] = place
        else:
            self._write({identity: place})
        self._remember(identity, place)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """What is noted inside is written at the end, in one transaction: each takes as long as some hundred rows."""
        self._pending, self._replies = {}, []
        try:
            yield
            self._write(self._pending, self._replies)
        except BaseException:
            for identity in self._pending:
                self._places.pop(identity, None)
            raise
        finally:
            self._pending = None

    def had(self, parent: Identity, name: bytes) -> list[Identity]:
        """The files that were seen last under that name of a folder, the newest first. They may be gone."""
        rows = self._database.execute(
            "SELECT identity FROM places WHERE parent = ? AND name = ?", (_IDENTITY.pack(*parent), name)
        )
        found = [Identity(*_IDENTITY.unpack(row[0])) for row in rows]
        return sorted(found, key=lambda identity: identity.born, reverse=True)

    def forget(self, identity: Identity) -> None:
        """The file is gone for good."""
        self._places.pop(identity, None)
        self._unwritten.pop(identity, None)
        if self._pending is not None:
            self._pending[identity] = None
        else:
            self._write({identity: None})

    def answer(self, digest: bytes) -> bytes | None:
        """What was answered to a call that came before: the guest sends it again when the connection has ended."""
        return self._answers.get(digest)

    def note_answer(self, digest: bytes, reply: bytes) -> None:
        self._answers[digest] = reply
        if self._pending is not None:
            self._replies.append((digest, reply))
        else:
            self._write({}, [(digest, reply)])

    def forget_answers(self) -> None:
        self._answers.clear()
        self._database.execute("DELETE FROM replies")

    def _remember(self, identity: Identity, place: Place) -> None:
        if len(self._places) >= _MEMORY:
            self._places.clear()
        self._places[identity] = place

    def _write(self, changes: Mapping[Identity, Place | None], replies: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """changes: None for a file that is gone. A full disk is no error: then all this is lost with this process."""
        if not changes and not replies:
            return
        new = {identity: place for identity, place in changes.items() if place}
        places = self._unwritten | new
        gone = [(_IDENTITY.pack(*identity),) for identity, place in changes.items() if not place]
        rows = [
            (_IDENTITY.pack(*identity), _IDENTITY.pack(*parent), name) for identity, (parent, name) in places.items()
        ]
        try:
            with self._database:  # rolled back when it fails
                self._database.execute("BEGIN")
                self._database.executemany("DELETE FROM places WHERE identity = ?", gone)
                self._database.executemany("REPLACE INTO places VALUES (?, ?, ?)", rows)
                self._database.executemany("INSERT INTO replies (digest, reply) VALUES (?, ?)", replies)
                self._forget_old_answers()
            self._unwritten = {}
        except sqlite3.OperationalError as error:
            if not _is_full(error) or (new and len(places) > _UNWRITTEN):
                raise
            self._unwritten = places

    def _forget_old_answers(self) -> None:
        if len(self._answers) < 2 * _ANSWERS:
            return
        for old in list(self._answers)[:_ANSWERS]:
            del self._answers[old]
        self._database.execute("DELETE FROM replies WHERE rowid <= (SELECT max(rowid) FROM replies) - ?", (_ANSWERS,))

    def _sealed(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=_SEAL).digest()

    def _shared_key(self) -> bytes:
        """It is on the disk when the first handle is made: with another key no handle of the guest's is good."""
        if not (row := self._database.execute("SELECT key FROM keys").fetchone()):
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("INSERT OR IGNORE INTO keys VALUES (0, ?)", (os.urandom(32),))
            self._database.execute("PRAGMA synchronous = OFF")
            row = self._database.execute("SELECT key FROM keys").fetchone()
        key: bytes = row[0]
        return key


def forget_answers(path: Path) -> None:
    """Forget what was answered, for a guest that goes back in time."""
    handles = Handles(path)
    handles.forget_answers()
    handles.close()


def _is_full(error: sqlite3.Error) -> bool:
    """Or the user's quota is used up, for which SQLite has no word of its own."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        path.touch(mode=0o600)
        _sync(path.parent)
    database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        # Two processes read and write it while the guest has two connections. A process that is killed harms nothing.
        _write_ahead(database)
        database.execute("PRAGMA synchronous = OFF")
        database.execute(
            "CREATE TABLE IF NOT EXISTS places (identity BLOB PRIMARY KEY, parent BLOB, name BLOB) WITHOUT ROWID"
        )
        database.execute("CREATE INDEX IF NOT EXISTS names ON places (parent, name)")
        database.execute("CREATE TABLE IF NOT EXISTS replies (digest BLOB, reply BLOB)")
        database.execute("CREATE TABLE IF NOT EXISTS keys (id INTEGER PRIMARY KEY, key BLOB)")
    except BaseException:
        database.close()
        raise
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """SQLite's own patience isn't for a change of the journal: that fails at once while another process opens, too."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _sync(folder: Path) -> None:
    """Have the folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Calls by which the guest only repeats what the host did, so that its kernel tells its programs (inotify).

They come from the guest's own program (folder-events.c), under a user id that nobody else has. They change nothing on
the host, and are answered as if they had: a file that is made is the one that is there, one that is removed is there
once more to be removed. Any root of the guest can make such calls: they reach nothing that others don't reach.
"""

from __future__ import annotations

import errno
import hashlib
import stat
import struct
from collections.abc import Mapping

from machine.folders import xdr
from machine.folders.attributes import Attributes, Identity
from machine.folders.export import Export
from machine.folders.handles import Handles
from machine.folders.mount_spec import REPLAY_UID as UID
from machine.folders.nfs3 import FILE_SYNC, LARGEST, NULL, OK, STALE, Nfs3, Refused, Target, name_of, new_name
from machine.folders.rpc import Call, Caller, Procedure, Program, Results

# The call's group, from the user's number on: what is said of a name that isn't there (any more). A folder, on the way
# to a file. Nothing. The file, or the folder, that was there before, also when there is another one by now.
FOLDERS, NOW, FILE_BEFORE, FOLDER_BEFORE = range(4)
# No file system has it: nothing is found by the identity of what was never seen.
_NOWHERE = (1 << 64) - 1
_ABSENT = xdr.flag(False)
_NOBODY = 65534
# What is remembered of files that are gone.
_MEMORY = 10_000


class Replay(Nfs3):
    """Answers such calls; attributes are told as to `owner`, who asked last of all others."""

    once = frozenset()

    def __init__(self, exports: Mapping[bytes, Export], handles: Handles, verifier: bytes) -> None:
        super().__init__(exports, handles, verifier)
        self.owner = Caller()
        # Which of the files that are gone were folders.
        self._were_folders: dict[Identity, bool] = {}

    def getattr(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            return xdr.u32(OK) + self._fattr(target.export, self._seen(target, _mode(call)), call.caller)

    def setattr(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            return xdr.u32(OK) + self._now(target, call)

    def access(self, call: Call) -> bytes:
        """Everything is allowed: nothing is done."""
        target, asked = self._target(call), call.arguments.u32()
        with self.lock:
            return (
                xdr.u32(OK) + self._post(target.export, self._seen(target, _mode(call)), call.caller) + xdr.u32(asked)
            )

    def lookup(self, call: Call) -> bytes:
        target, name = self._target(call), name_of(call.arguments)
        if name in {b".", b".."}:
            raise Refused(STALE)
        with self.lock:
            found = self._before(target, name, _mode(call))
            return (
                xdr.u32(OK)
                + xdr.opaque(self.handle(target.export, found.identity))
                + self._post(target.export, found, call.caller)
                + self._post(target.export, self._seen(target, FOLDERS), call.caller)
            )

    def create(self, call: Call) -> bytes:
        target, name = self._target(call), new_name(call.arguments)
        with self.lock:
            found = _current(target, name) or self._before(target, name, _mode(call))
            return (
                xdr.u32(OK)
                + xdr.flag(True)
                + xdr.opaque(self.handle(target.export, found.identity))
                + self._post(target.export, found, call.caller)
                + self._now(target, call, FOLDERS)
            )

    mkdir = symlink = create

    def remove(self, call: Call) -> bytes:
        """The time at which the folder changed is told wrongly: so the guest soon asks anew what lies there.

        It would go on taking the name for free when the host has made another file.
        """
        target, name = self._target(call), new_name(call.arguments)
        with self.lock:
            current = _current(target, name)
            for identity in self.handles.had(target.identity, name):
                if current is None or identity != current.identity:
                    self.handles.forget(identity)
            folder = self._seen(target, FOLDERS)
            folder = folder._replace(changed=folder.changed ^ 1)
            return xdr.u32(OK) + _ABSENT + self._post(target.export, folder, call.caller)

    rmdir = remove

    def rename(self, call: Call) -> bytes:
        """The guest renames a file that is removed while a program has it open."""
        source, _ = self._target(call), new_name(call.arguments)
        target, _ = self._target(call), new_name(call.arguments)
        with self.lock:
            return xdr.u32(OK) + self._now(source, call, FOLDERS) + self._now(target, call, FOLDERS)

    def link(self, call: Call) -> bytes:
        source = self._target(call)
        target, _ = self._target(call), new_name(call.arguments)
        with self.lock:
            found = self._seen(source, _mode(call))
            return xdr.u32(OK) + self._post(source.export, found, call.caller) + self._now(target, call, FOLDERS)

    def write(self, call: Call) -> bytes:
        target = self._target(call)
        for _ in ("offset", "offset", "count", "how"):
            call.arguments.u32()
        count = len(call.arguments.data(LARGEST))
        with self.lock:
            return xdr.u32(OK) + self._now(target, call) + xdr.u32(count) + xdr.u32(FILE_SYNC) + self.verifier

    def commit(self, call: Call) -> bytes:
        target = self._target(call)
        with self.lock:
            return xdr.u32(OK) + self._now(target, call) + self.verifier

    def _now(self, target: Target, call: Call, mode: int | None = None) -> bytes:
        """The attributes that a file has. None that it had: the guest asks anew for contents that it knows."""
        found = self._seen(target, _mode(call) if mode is None else mode)
        return _ABSENT + self._post(target.export, found, call.caller)

    def _fattr(self, export: Export, found: Attributes, caller: Caller) -> bytes:
        return super()._fattr(export, found, self.owner)

    def _seen(self, target: Target, mode: int) -> Attributes:
        """What is there, or was. Raises OSError when only the former counts."""
        if target.identity.device != _NOWHERE:
            try:
                return target.export.find(target.identity)
            except OSError:
                if mode == NOW:
                    raise
        return self._gone(target.identity, mode)

    def _gone(self, identity: Identity, mode: int) -> Attributes:
        """The kernel must hear the same kind each time."""
        if len(self._were_folders) >= _MEMORY:
            self._were_folders.clear()
        return _gone(identity, is_folder=self._were_folders.setdefault(identity, mode != FILE_BEFORE))

    def _before(self, target: Target, name: bytes, mode: int) -> Attributes:
        """What had that name: what the guest's programs may still watch. Raises OSError, as `Export.child`."""
        current = _current(target, name)
        if mode in {FOLDERS, NOW} and current:
            return current
        if mode == NOW:
            raise FileNotFoundError(errno.ENOENT, "gone")
        for identity in self.handles.had(target.identity, name):
            if current is None or identity != current.identity:
                return self._seen(Target(target.export, identity), mode)
        return current or self._gone(_made_up(target.identity, name, mode), mode)


def beside(usual: Program, replay: Replay) -> Program:
    """The usual procedures, but for the calls that only repeat."""
    own = replay.program().procedures

    def either(number: int) -> Procedure:
        def answered(call: Call) -> Results:
            if call.caller.uid == UID:
                return own[number](call)
            replay.owner = call.caller
            return usual.procedures[number](call)

        return answered if number != NULL else usual.procedures[number]

    return Program(usual.number, usual.version, {number: either(number) for number in usual.procedures})


def _mode(call: Call) -> int:
    return call.caller.gid - UID if UID <= call.caller.gid <= UID + FOLDER_BEFORE else NOW


def _current(target: Target, name: bytes) -> Attributes | None:
    """What has that name now. Raises PermissionError for a name that is hidden, whether it is there or not."""
    try:
        folder, _ = target.export.folder(target.identity)
    except OSError:
        return None
    target.export.check_new(folder, target.identity, name)
    try:
        return target.export.child(folder, target.identity, name)
    except OSError:
        return None


def _gone(identity: Identity, *, is_folder: bool) -> Attributes:
    """Attributes that tell nothing but whether it was a folder, and by their times that it is gone."""
    kind, links = (stat.S_IFDIR | 0o777, 2) if is_folder else (stat.S_IFREG | 0o666, 1)
    return Attributes(kind, links, _NOBODY, _NOBODY, 0, 0, identity, 0, 0, 0, (0, 0))


def _made_up(parent: Identity, name: bytes, mode: int) -> Identity:
    digest = hashlib.blake2b(struct.pack(">QQQ", *parent) + name, digest_size=8).digest()
    return Identity(_NOWHERE, int.from_bytes(digest), FILE_BEFORE if mode == FILE_BEFORE else FOLDER_BEFORE)

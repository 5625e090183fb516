"""One folder of the host that the guest may reach: by descriptors, never by a path.

Each step from the top folder is one name in an open folder, and no symbolic link is followed: so neither `..` nor a
link, nor one that is put there meanwhile, leads out. A link's text is the guest's to follow, in its own tree.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import hashlib
import os
import stat
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from machine.folders import attributes
from machine.folders.attributes import Attributes, Identity
from machine.folders.handles import MARK, Handles

# A descriptor that only names a file: it opens no device, and needs no right to read. macOS has none.
_NAMED = getattr(os, "O_PATH", os.O_RDONLY)
_FOLDER = _NAMED | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Open files and folders are kept, so many of each; files for so many seconds after their last use.
_KEPT_FILES, _KEPT_FOLDERS = 256, 2048
_IDLE = 5.0
# Seconds for which an open folder is taken to lie where it lay.
_CHECKED = 1.0
# No folder lies deeper; and so many may be found to have moved on the way there. All that is opened on the way is less
# than what is kept open: so none is closed that a call goes on to use.
_DEPTH, _MOVES = 600, 2
# Listings that the guest is in the midst of, and the names in all of them (150 bytes each) but the last.
_LISTINGS = 8
_LISTED = 200_000
# The smallest cookie of an entry: 0 is the beginning, 1 and 2 are `.` and `..`.
_FIRST_COOKIE = 3


class OpenFile:
    """A descriptor that is closed when nobody uses it any more."""

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        self.descriptor = descriptor
        self.writable = writable
        self.used = time.monotonic()

    def __del__(self) -> None:
        os.close(self.descriptor)


class Export:
    """source: the folder of the host; target: its path in the guest; hidden: what isn't in it for the guest.

    Not for several threads at once: who uses it holds `lock`. Methods raise OSError, with ESTALE for a file that isn't
    there any more.
    """

    def __init__(
        self, source: Path, target: bytes, handles: Handles, *, read_only: bool = False, hidden: Iterable[Path] = ()
    ) -> None:
        self.target = target
        self.read_only = read_only
        self.mark = hashlib.blake2b(target, digest_size=MARK).digest()
        self.lock = handles.lock
        self.number = int.from_bytes(self.mark)
        self._handles = handles
        self._root = _top(source)
        self._device = attributes.of_open(self._root).identity.device
        self.top = self.attributes_of(self._root).identity
        self._folders: dict[Identity, OpenFile] = {}
        self._files: dict[Identity, OpenFile] = {}
        self._timer: threading.Timer | None = None
        self._listings: dict[Identity, list[tuple[int, bytes]]] = {}
        self._pinned: set[tuple[int, int]] = set()
        self._hidden_names, self._hidden_files = self._find_hidden(hidden)
        self._hiding: dict[tuple[int, int], list[bytes]] = {}
        for device, inode, name in self._hidden_names:
            self._hiding.setdefault((device, inode), []).append(name)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._files.clear()
        self._folders.clear()
        os.close(self._root)

    def free(self) -> None:
        """Close what is kept open, and not in use: there are no descriptors left."""
        self._files.clear()
        self._folders.clear()

    def attributes_of(self, descriptor: int) -> Attributes:
        return self._own(attributes.of_open(descriptor))

    def find(self, identity: Identity) -> Attributes:
        """The attributes of a file that was seen before."""
        try:
            return self.locate(identity)[2]
        except OSError:
            if file := self._files.get(identity):  # removed on the host, and open in the guest
                return self.attributes_of(file.descriptor)
            raise

    def locate(self, identity: Identity, moves: int = 0) -> tuple[int, bytes, Attributes]:
        """The open folder that a file lies in, its name there, and its attributes."""
        if identity == self.top:
            return self._root, b".", self.attributes_of(self._root)
        if moves > _MOVES:
            raise _stale()
        for anew in (False, True):
            if not (place := self._handles.place(identity, anew=anew)):
                raise _stale()
            parent, name = place
            folder = self._open_folder(parent, moves)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = self._look(folder, parent, name)
                if found.identity == identity:
                    return folder, name, found
            # Renamed on the host, most likely beside where it was.
            if again := self._search(folder, parent, identity):
                return folder, *again
        raise _stale()

    def folder(self, identity: Identity) -> tuple[int, Attributes]:
        """An open folder, and its attributes."""
        descriptor = self._open_folder(identity)
        found = self.attributes_of(descriptor)
        if not found.links:
            self._folders.pop(identity, None)
            raise _stale()
        return descriptor, found

    def child(self, folder: int, parent: Identity, name: bytes, *, waits: bool = True) -> Attributes:
        """What has that name in an open folder; it can be found by its identity from then on.

        waits: as for `attributes.of`.
        """
        found = self._look(folder, parent, name, waits=waits)
        self._handles.note(found.identity, parent, name)
        return found

    def check_new(self, folder: int, parent: Identity, name: bytes) -> None:
        """Raise PermissionError for a name in an open folder that leads to what is hidden, or will when that is made.

        In other letters or another normal form, too: many file systems take them for the same name.
        """
        if self._spelled_alike(parent, name) or self._leads_to_hidden(folder, name):
            raise PermissionError(errno.EACCES, "hidden")

    def check_may_go(self, found: Attributes) -> None:
        """Raise PermissionError for a folder or link that leads to what is hidden.

        What is hidden is found by its path: under another name it would come into view with the next connection.
        """
        if found.identity[:2] in self._pinned:
            raise PermissionError(errno.EACCES, "leads to what is hidden")

    def parent(self, identity: Identity) -> Identity:
        """The folder that a folder lies in; of the top, itself."""
        place = self._handles.place(identity) if identity != self.top else None
        return place[0] if place else self.top

    def open_file(self, identity: Identity, *, write: bool) -> OpenFile:
        """A regular file, open for reading, or for both."""
        file = self._files.pop(identity, None)
        if file is None or (write and not file.writable):
            folder, name, found = self.locate(identity)
            if not found.is_file:
                raise OSError(errno.EISDIR if found.is_folder else errno.EINVAL, "no regular file")
            file = OpenFile(self._opened(folder, name, found, write=write), writable=write)
            if self.attributes_of(file.descriptor).identity != identity:
                raise _stale()
        self.keep(identity, file)
        return file

    def set_mode(self, folder: int, name: bytes, of: Attributes, mode: int) -> None:
        """The mode of that file, and of no other that has its name by now. A symbolic link's own nobody asks for.

        A program gets no bits by which it runs as the file's owner: on the host that is the user.
        """
        if stat.S_ISLNK(of.mode):
            return
        try:
            with self._named(folder, name, of) as descriptor:
                _set_mode(descriptor, mode if of.is_folder else safe(mode))
        except PermissionError:
            if hasattr(os, "O_PATH"):
                raise
            # macOS opens no file that can't be read. By its name another might get these bits, which do no harm.
            os.chmod(name, safe(mode), dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def _named(self, folder: int, name: bytes, of: Attributes) -> Iterator[int]:
        """A descriptor of that file, for which no other can be exchanged meanwhile."""
        descriptor = os.open(name, _NAMED | _FILE, dir_fd=folder)
        try:
            if self.attributes_of(descriptor).identity != of.identity:
                raise _stale()
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened(self, folder: int, name: bytes, found: Attributes, *, write: bool) -> int:
        """A descriptor of a regular file. Its owner gets at it whatever its mode, where the folder may be written.

        Who made a file may write to it though its mode forbids that (git makes its objects so), and here each write
        opens the file anew: so the server, which has the owner's rights only, lends itself the right for a moment.
        """
        flags = _FILE | (os.O_RDWR if write else os.O_RDONLY)
        try:
            return os.open(name, flags, dir_fd=folder)
        except PermissionError:
            if self.read_only or found.uid != os.geteuid():
                raise
        with self._named(folder, name, found) as descriptor:
            _set_mode(descriptor, safe(found.mode) | stat.S_IRUSR | stat.S_IWUSR)
            try:
                return os.open(name, flags, dir_fd=folder)
            finally:
                _set_mode(descriptor, stat.S_IMODE(found.mode))

    def keep(self, identity: Identity, file: OpenFile) -> None:
        """Have an open file at hand for the calls that follow."""
        file.used = time.monotonic()
        _add(self._files, identity, file, _KEPT_FILES)
        self._close_later()

    def forget(self, removed: Attributes) -> None:
        """Forget a file, as it was, one of whose names was removed: if it has others, it may be found by them."""
        if removed.links == 1 or removed.is_folder:
            self._files.pop(removed.identity, None)
            self._folders.pop(removed.identity, None)
            self._handles.forget(removed.identity)

    def listing(self, identity: Identity, cookie: int) -> list[tuple[int, bytes]]:
        """The names in a folder that come after the cookie (0: all), each with its own.

        A cookie is a digest of the name: a listing goes on rightly though names come and go, or the server is another.
        """
        found = self._listings.pop(identity, None) if cookie else None
        if found is None:
            found = sorted((_cookie(name), name) for name in self._names(identity))
        while self._listings and (
            len(self._listings) >= _LISTINGS or sum(map(len, self._listings.values())) > _LISTED - len(found)
        ):
            del self._listings[next(iter(self._listings))]
        self._listings[identity] = found
        return found[bisect.bisect_right(found, cookie, key=lambda entry: entry[0]) :]

    def _names(self, identity: Identity) -> list[bytes]:
        folder, _ = self.folder(identity)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            with os.scandir(descriptor) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
            return [name for name in names if (identity.device, identity.inode, name) not in self._hidden_names]
        finally:
            os.close(descriptor)

    def _open_folder(self, identity: Identity, moves: int = 0) -> int:
        if identity == self.top:
            return self._root
        for each in reversed(self._way_up(identity)):
            self._enter(each, moves)
        # The last that is given up when there are too many.
        file = self._folders[identity] = self._folders.pop(identity)
        return file.descriptor

    def _way_up(self, identity: Identity) -> list[Identity]:
        """The folders from this one on upwards, up to one that was checked lately, or the top, which isn't in it."""
        way: dict[Identity, None] = {}
        limit = time.monotonic() - _CHECKED
        while identity != self.top and not ((file := self._folders.get(identity)) and file.used >= limit):
            if identity in way or len(way) >= _DEPTH or not (place := self._handles.place(identity)):
                raise _stale()
            way[identity] = None
            identity = place[0]
        return list(way)

    def _enter(self, identity: Identity, moves: int) -> None:
        """Have a folder open. Raises OSError when the host moved it out of the export."""
        folder, name, found = self.locate(identity, moves + 1)
        file = self._folders.pop(identity, None)
        if file is None:
            if not found.is_folder:
                raise NotADirectoryError(errno.ENOTDIR, "no folder")
            file = OpenFile(os.open(name, _FOLDER, dir_fd=folder), writable=False)
            if self.attributes_of(file.descriptor).identity != identity:
                raise _stale()
        file.used = time.monotonic()
        _add(self._folders, identity, file, _KEPT_FOLDERS)

    def _look(self, folder: int, parent: Identity, name: bytes, *, waits: bool = True) -> Attributes:
        if (parent.device, parent.inode, name) in self._hidden_names:
            raise FileNotFoundError(errno.ENOENT, "hidden")
        found = self._own(attributes.of(folder, name, waits=waits))
        if found.identity[:2] in self._hidden_files or self._is_hidden(folder, parent, name, found):
            raise FileNotFoundError(errno.ENOENT, "hidden")
        return found

    def _spelled_alike(self, parent: Identity, name: bytes) -> list[bytes]:
        """The hidden names of a folder that are this one in other letters, or another normal form."""
        if parent[:2] not in self._hiding:
            return []
        return [hidden for hidden in self._hiding[parent[:2]] if _plain(hidden) == _plain(name)]

    def _is_hidden(self, folder: int, parent: Identity, name: bytes, found: Attributes) -> bool:
        """Whether a hidden name leads to the same file. It may have been made since this process began."""
        for hidden in self._spelled_alike(parent, name):
            with contextlib.suppress(OSError):
                if self._own(attributes.of(folder, hidden)).identity == found.identity:
                    return True
        return False

    def _leads_to_hidden(self, folder: int, name: bytes) -> bool:
        with contextlib.suppress(OSError):
            return self._own(attributes.of(folder, name)).identity[:2] in self._hidden_files
        return False

    def _own(self, found: Attributes) -> Attributes:
        """The device of the top folder has another number after the host was booted: here it is the export's mark."""
        device, inode, born = found.identity
        if device != self._device:
            return found
        # As _replace does, in a sixth of the time: it is done for each file of a listing.
        return Attributes(*found[:6], Identity(self.number, inode, born), *found[7:])

    def _search(self, folder: int, parent: Identity, identity: Identity) -> tuple[bytes, Attributes] | None:
        with contextlib.suppress(OSError):
            descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                with os.scandir(descriptor) as entries:
                    names = [os.fsencode(entry.name) for entry in entries if entry.inode() == identity.inode]
            finally:
                os.close(descriptor)
            for name in names:
                if (found := self._look(folder, parent, name)).identity == identity:
                    self._handles.note(identity, parent, name)
                    return name, found
        return None

    def _close_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(_IDLE, self._close_idle)
            self._timer.daemon = True
            self._timer.start()

    def _close_idle(self) -> None:
        """What was removed on the host takes room there as long as it is open here."""
        with self.lock:
            self._timer = None
            limit = time.monotonic() - _IDLE
            self._files = {identity: file for identity, file in self._files.items() if file.used > limit}
            if self._files:
                self._close_later()

    def _find_hidden(self, hidden: Iterable[Path]) -> tuple[set[tuple[int, int, bytes]], set[tuple[int, int]]]:
        names, files = set(), set()
        for above in {above for path in _spellings(hidden) for above in path.parents}:
            with contextlib.suppress(OSError):
                self._pinned |= {found[:2] for found, name in self._by_path(above) if not name}
        for path in _spellings(hidden):
            with contextlib.suppress(OSError):
                for found, name in self._by_path(path):
                    if name:
                        names.add((found.device, found.inode, name))
                    elif found != self.top:  # what was asked for by its own path is meant
                        files.add((found.device, found.inode))
        return names, files

    def _by_path(self, path: Path) -> Iterator[tuple[Identity, bytes]]:
        descriptor = os.open(path.parent, _NAMED | os.O_DIRECTORY)
        try:
            yield self.attributes_of(descriptor).identity, os.fsencode(path.name)
            yield self._own(attributes.of(descriptor, os.fsencode(path.name))).identity, b""
        finally:
            os.close(descriptor)


def _top(source: Path) -> int:
    """The folder that is shared. Raises OSError when a link on the way to it leads elsewhere now than at create.

    Another machine, or another share of this one, may have the folders above it, and be able to rename them.
    """
    descriptor = os.open(source, _NAMED | os.O_DIRECTORY | os.O_CLOEXEC)
    if source.resolve() != source:
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if sys.platform == "linux" and Path(f"/proc/self/fd/{descriptor}").readlink() != source:
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return descriptor


def _spellings(paths: Iterable[Path]) -> set[Path]:
    return {spelling for path in paths for spelling in (path, path.resolve())}


def safe(mode: int) -> int:
    """A program's mode without the bits by which it runs as its owner: on the host that is the user."""
    return stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID)


def _set_mode(descriptor: int, mode: int) -> None:
    if sys.platform == "linux":  # fchmod takes no O_PATH
        Path(f"/proc/self/fd/{descriptor}").chmod(mode)
    else:
        os.fchmod(descriptor, mode)


def _add(kept: dict[Identity, OpenFile], identity: Identity, file: OpenFile, limit: int) -> None:
    while len(kept) >= limit:
        del kept[next(iter(kept))]
    kept[identity] = file


def _plain(name: bytes) -> str:
    """What is the same for all names that some file system takes for one: no letter case, normal form, or joiners."""
    letters = unicodedata.normalize("NFD", name.decode("utf-8", "surrogateescape").casefold())
    return "".join(letter for letter in letters.casefold() if unicodedata.category(letter) != "Cf")


def _cookie(name: bytes) -> int:
    # 63 bits: where a guest's C library has signed offsets, there are no more.
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return max(int.from_bytes(digest) >> 1, _FIRST_COOKIE)


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))

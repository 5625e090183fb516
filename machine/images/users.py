"""Which machines boot an image of the cache, including those of other stores that share it ($MACHINE_IMAGES_PATH).

    <images>/.users/DIGEST/KEY      the path of a store in which a machine that boots the image was made or started

Whether the machine still exists is read from that store each time. A missing store may have been removed, or be on a
disk that isn't mounted. Nothing tells these two apart, so missing stores are reported as such.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from machine import files, paths

_FOLDER = ".users"


class Now(Enum):
    HERE = "here"
    GONE = "gone"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class User:
    """A store with machines that boot an image; machines is empty for a store that can't be read."""

    store: Path
    now: Now
    machines: tuple[str, ...] = ()

    def __str__(self) -> str:
        if paths.same(self.store, paths.store()):
            return ", ".join(self.machines)
        if self.now is Now.HERE:
            return f"{', '.join(self.machines)} (in {self.store})"
        return f"the store {self.store}, {'which is missing' if self.now is Now.GONE else 'which you may not read'}"


def note(digest: str) -> None:
    """Remember that this store has a machine that boots the image; does nothing in a read-only cache."""
    mark = _mark(digest, paths.store())
    with contextlib.suppress(OSError):
        if digest and not mark.exists():
            files.make_folder(mark.parent)
            files.write(mark, f"{os.path.realpath(paths.store())}\n")


@contextlib.contextmanager
def noted(digest: str) -> Iterator[None]:
    """Remember it for a machine that is made in the block; if the block fails, forget it."""
    note(digest)
    try:
        yield
    except BaseException:
        forget(digest)
        raise


def forget(digest: str) -> None:
    """Undo `remember` when no machine of this store boots the image any more."""
    if digest and _user(paths.store(), digest) is None:
        with contextlib.suppress(OSError):
            mark = _mark(digest, paths.store())
            mark.unlink()
            mark.parent.rmdir()


def forget_all(digest: str) -> None:
    """Forget all users of an image that was removed."""
    shutil.rmtree(paths.images() / _FOLDER / digest, ignore_errors=True)


def users(digest: str) -> list[User]:
    """The stores that boot the image: this one, and all others that ever did, in their present state."""
    stores = [paths.store()]
    for _, store in _marks(digest):
        if not any(paths.same(store, known) for known in stores):
            stores.append(store)
    return [user for store in stores if (user := _user(store, digest))]


def _user(store: Path, digest: str) -> User | None:
    """None for a store that exists and has no such machine."""
    try:
        machines = tuple(sorted(_machines(store, digest)))
    except FileNotFoundError:
        # Our own store may have no machines yet. Another store had one, so it is gone.
        return None if store.exists() or paths.same(store, paths.store()) else User(store, Now.GONE)
    except OSError:
        return User(store, Now.UNREADABLE)
    return User(store, Now.HERE, machines) if machines else None


def _machines(store: Path, digest: str) -> Iterator[str]:
    """The machines whose files name the image: they boot it, or a snapshot of them ran on it.

    A machine whose files can't be read is included, because it may boot the image. Raises OSError.
    """
    for folder in (store / "machines").iterdir():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            if _names(folder, digest):
                yield folder.name
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            yield f"{folder.name} (can't be read)"


def _names(folder: Path, digest: str) -> bool:
    found = False
    for file in folder.iterdir():
        if file.suffix != ".json":
            continue
        try:
            text = file.read_bytes()
        except FileNotFoundError:  # just replaced, or removed
            continue
        found = found or digest.encode() in text
        if file.name in {"machine.json", "creating.json"}:
            json.loads(text)["image"].encode()
    return found


def _marks(digest: str) -> Iterator[tuple[Path, Path]]:
    """Each mark: its file, and the store that it names."""
    with contextlib.suppress(OSError):
        for mark in sorted((paths.images() / _FOLDER / digest).iterdir()):
            with contextlib.suppress(OSError, ValueError):
                if text := mark.read_text(encoding="utf-8").rstrip("\n"):
                    yield mark, Path(text)


def _mark(digest: str, store: Path) -> Path:
    key = hashlib.sha256(os.path.realpath(store).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return paths.images() / _FOLDER / digest / key

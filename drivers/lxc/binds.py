"""Folders of this host in a container: mounts that show their owner as the container's root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import mounts


@dataclass(frozen=True)
class Bind:
    """source: a folder of this host; target: its path in the container. uid, gid: who is root there, on this host."""

    source: str
    target: str
    uid: int
    gid: int
    read_only: bool = False


def put(bind: Bind, root: Path, first_id: int | None) -> None:
    """Bind the folder into the container's root. Raises OSError."""
    ids = mounts.Ids(((bind.uid, first_id or 0, 1),), ((bind.gid, first_id or 0, 1),))
    mount(Path(bind.source), folder_in(root, bind.target, first_id), ids=ids, read_only=bind.read_only, closed=True)


def mount(source: Path, target: Path, *, ids: mounts.Ids | None, read_only: bool = False, closed: bool = False) -> None:
    """Bind source to target, whose owners appear as ids say."""
    descriptor = mounts.clone(source)
    mounts.adorn(descriptor, ids=ids, read_only=read_only, closed=closed)
    mounts.attach(descriptor, target)


def folder_in(root: Path, target: str, first_id: int | None) -> Path:
    """The folder target of a container, made for its root if it isn't there."""
    path = root
    for part in Path(target).relative_to("/").parts:
        path /= part
        if not path.exists():
            path.mkdir(mode=0o755)
            os.chown(path, first_id or 0, first_id or 0)
    return path

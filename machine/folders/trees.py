"""Which folders of the host running containers bind: what to watch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.folders import mount_spec


@dataclass(frozen=True)
class Tree:
    """A folder of the host to watch; target: its path in the machine; top: the shared folder that it lies in.

    name: the only file in it that counts, where a container binds a file.
    """

    source: bytes
    target: bytes
    top: bytes
    name: bytes = b""


def trees(containers: Iterable[Mapping[str, Any]], folders: Iterable[mount_spec.Folder]) -> frozenset[Tree]:
    """What running containers bind of the shared folders. containers: as GET /containers/json has them."""
    bound = {
        str(mount.get("Source") or "")
        for container in containers
        for mount in container.get("Mounts") or ()
        if mount.get("Type") == "bind"
    }
    found = {tree for path in bound for folder in folders if (tree := _tree(path, folder))}
    return frozenset(tree for tree in found if not any(_covers(other, tree) for other in found))


def _tree(path: str, folder: mount_spec.Folder) -> Tree | None:
    """None for what isn't in that folder, and where the machine can't repeat anything: it may only read there."""
    if folder.read_only or not mount_spec.below(path, folder.target):
        return None
    source = (folder.source / Path(path).relative_to(folder.target)).resolve()
    if not source.is_relative_to(folder.source):
        return None
    target = Path(folder.target) / source.relative_to(folder.source)
    top = os.fsencode(folder.source)
    if source.is_dir():
        return Tree(os.fsencode(source), os.fsencode(target), top)
    return Tree(os.fsencode(source.parent), os.fsencode(target.parent), top, os.fsencode(source.name))


def _covers(one: Tree, other: Tree) -> bool:
    if one == other or one.name or one.top != other.top:
        return False
    return (other.source + b"/").startswith(one.source + b"/")

"""Folders of this host in a container: mounts that show the folder's owner as the container's root.

`launch` puts each below Layout.host, a small file system in the container's mount namespace that only we write. The
container has it at /mnt/host, and gets by propagation what is put there later. Mounts that come together from a more
privileged namespace can't be separated in the container (mount_namespaces(7)). So each folder is put together elsewhere
first, and comes with what hides parts of it: root in the container can unmount all of it, or nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from machine import paths
from machine.folders import installation, mount_spec
from machine.folders.mount_spec import Folder
from machine.run import run

from . import mounts
from .layout import Layout


@dataclass(frozen=True)
class Bind:
    """source: a folder of this host; name: its own below Layout.host. uid, gid: of its owner, who is root there.

    hidden: what isn't to be seen of it, by its path in it.
    """

    source: str
    name: str
    uid: int
    gid: int
    read_only: bool = False
    hidden: tuple[str, ...] = ()


def of(folder: Folder, store: Path) -> Bind | None:
    """None for a folder that isn't there. Raises Usage for an invalid config.toml, and OSError."""
    try:
        found = folder.source.stat()
    except FileNotFoundError:
        return None
    hidden = [*mount_spec.hidden(store), *(() if folder.read_only else installation.folders())]
    return Bind(
        str(folder.source),
        mount_spec.bound_name(folder),
        found.st_uid,
        found.st_gid,
        folder.read_only,
        tuple(sorted(_inside(folder.source, hidden))),
    )


def _inside(source: Path, hidden: Iterable[Path]) -> set[str]:
    """The hidden paths that are in source, without links, relative to it."""
    found = set()
    for path in hidden:
        real = Path(os.path.realpath(path))
        inside = paths.below(real, source.resolve()) if os.path.lexists(real) else None
        if inside is not None and inside.parts:
            found.add(str(inside))
    return found


def bring(layout: Layout, binds: Iterable[Bind], first_id: int | None) -> None:
    """Have these folders below layout.host, and no others. In the container's mount namespace. Raises OSError."""
    wanted = {bind.name: bind for bind in binds}
    there = {path.name for path in layout.host.iterdir()}
    for name in there - wanted.keys():
        run(["umount", "--recursive", "--lazy", layout.host / name], check=False)
        (layout.host / name).rmdir()
    for name in wanted.keys() - there:
        _put(layout, wanted[name], first_id)


def _put(layout: Layout, bind: Bind, first_id: int | None) -> None:
    place, whole = layout.stage, layout.host / bind.name
    for folder in (place, whole):
        folder.mkdir(mode=0o711, exist_ok=True)
    ids = mounts.Ids(((bind.uid, first_id or 0, 1),), ((bind.gid, first_id or 0, 1),))
    mount(Path(bind.source), place, ids=ids, read_only=bind.read_only, closed=True)
    fixed: set[PurePosixPath] = set()
    for hidden in map(PurePosixPath, bind.hidden):
        # A mount can't be renamed: what is hidden stays where it is hidden.
        for above in reversed(hidden.parents[:-1]):
            if above not in fixed:
                mount(Path(bind.source, above), place / above, ids=ids, read_only=bind.read_only, closed=True)
                fixed.add(above)
        with contextlib.suppress(FileNotFoundError):  # removed at this moment
            cover = layout.nothing if Path(bind.source, hidden).is_dir() else layout.no_file
            mount(cover, place / hidden, ids=None, read_only=True, closed=True)
    mounts.attach(mounts.clone(place, recursive=True), whole)
    run(["umount", "--recursive", "--lazy", place])


def mount(source: Path, target: Path, *, ids: mounts.Ids | None, read_only: bool = False, closed: bool = False) -> None:
    """Bind source to target, whose owners appear as ids say."""
    descriptor = mounts.clone(source)
    mounts.adorn(descriptor, ids=ids, read_only=read_only, closed=closed)
    mounts.attach(descriptor, target)


def folder_in(root: Path, target: str, first_id: int | None) -> Path:
    """The folder target of a container that hasn't started, made for its root if it isn't there."""
    path = root
    for part in Path(target).relative_to("/").parts:
        path /= part
        if not path.exists():
            path.mkdir(mode=0o755)
            os.chown(path, first_id or 0, first_id or 0)
    return path

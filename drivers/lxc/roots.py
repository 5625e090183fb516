"""The image's root file system as plain files, unpacked once for each image, in its folder of the cache.

Out of the image itself (a squashfs), the first container that runs decompresses Docker's programs: half a second of a
processor at each start, because the kernel forgets the pages with the last mount. It remembers those of plain files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from machine import ownership
from machine.errors import MachineError
from machine.helper import try_lock
from machine.run import Run

from . import mounts
from .mounts import Ids

# Seconds, for some 300 MB.
COPY = 600.0
# Bytes: the files, and as much again for others.
ROOM = 1 << 30


def is_there(target: Path) -> bool:
    """Whether it is unpacked, where nobody else could have put something else: nothing checks its digest."""
    return target.exists() and _is_ours(target.parent)


def is_due(target: Path, ids: Ids | None) -> bool:
    """Whether `unpack` would do it."""
    with contextlib.suppress(OSError):
        return not target.parent.exists() and _is_usable(target.parent.parent, ids)
    return False


def unpack(mounted: Path, target: Path, ids: Ids | None, run: Run) -> None:
    """Copy what is mounted there to target; does nothing where containers couldn't use it, or when that fails."""
    folder = target.parent
    with contextlib.suppress(OSError, MachineError), _alone(folder.parent) as alone:
        if not alone or not is_due(target, ids):
            return
        # Only its owner may enter: there are programs in it that run as root.
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        try:
            run(["cp", "--archive", "--", mounted, unfinished / target.name], timeout=COPY)
            # A power cut must not leave empty files under the final name.
            run(["sync", "--file-system", unfinished], timeout=COPY)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _is_usable(folder: Path, ids: Ids | None) -> bool:
    """Whether it is ours, there is room, and the file system can show other owners. Raises OSError where it can't."""
    mounts.try_to_adorn(folder, ids)
    return _is_ours(folder) and shutil.disk_usage(folder).free > ROOM


def _is_ours(folder: Path) -> bool:
    """Whether only this user can write there and into what it lies in, as far as the cache of images goes."""
    return all(map(ownership.is_private, (folder, folder.parent, folder.parent.parent)))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else unpacks that image; held meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)

"""What moves of a machine to another host: the files of its disk, as a tar, and not the disk itself.

An import may come from a stranger, and this host's kernel shouldn't mount a file system that a stranger has made. So it
makes a file system of its own, and unpacks the files with the rights of a container's root: in a user namespace, which
can make no device file, and owns nothing of this host. Owners in the tar are the ids that the container sees.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine.driver import Export, Machine, Reach
from machine.errors import DriverFailed, ImageCorrupt, ToolFailed
from machine.reasons import reason
from machine.run import run

from . import binds, disk, mounts, snapshots
from .container import LAST_ID, Container
from .layout import IDS, Layout

DATA = "data.tar"
# A folder of the machine's, in which the tar is made.
_SCRATCH = ".export-"
# Seconds.
LONG = 3600.0
# user.* are those of overlays, security.capability of programs.
_TAR = ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")
# The namespace's root may not open the file.
_READ = 'exec <"$1"; shift; exec "$@"'


@contextmanager
def export(container: Container) -> Iterator[Export]:
    clear(container.folder.path)  # of an export that was killed
    container.await_release()
    scratch = Path(tempfile.mkdtemp(dir=container.folder.path, prefix=_SCRATCH))
    try:
        container.say("reading the files of its disk")
        mounts.apart(lambda: _pack(container.disk, scratch))
        names = ", ".join(snapshot.name for snapshot in snapshots.all_of(container))
        left = f"the snapshots {names} aren't moved: the file holds the machine as it is now"
        yield Export({DATA: scratch / DATA}, (left,) if names else ())
    finally:
        clear(container.folder.path)


def clear(folder: Path) -> None:
    for path in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(path, ignore_errors=True)


def _pack(source: Path, scratch: Path) -> None:
    mounted = scratch / "disk"
    mounted.mkdir(mode=0o700)
    disk.check(source, run)
    run(["mount", "--types", "ext4", "--options", "loop,ro,nodev,nosuid", source, mounted])
    run([*_TAR, "--create", "--file", scratch / DATA, "--directory", mounted, "."], timeout=LONG)
    run(["umount", mounted])


def reaches(machine: Machine) -> list[Reach]:
    if not machine.options.get("privileged"):
        return []
    return [Reach("root's rights on this computer (--lxc-privileged)", _without_privileges)]


def _without_privileges(machine: Machine) -> Machine:
    options = {name: value for name, value in machine.options.items() if name != "privileged"}
    return dataclasses.replace(machine, options=options)


def accept(container: Container) -> Machine:
    """See driver.Portable. Afterwards the disk is there."""
    source = container.folder / DATA
    if not source.exists():
        raise ImageCorrupt(
            f"that file holds no {DATA}", hint="make that file again on the machine's own host: machine export"
        )
    disk.make(container.disk, container.machine.disk_mib, container.run)
    try:
        mounts.apart(lambda: _unpack(source, container.disk, container.layout))
    except ToolFailed as error:
        raise DriverFailed("the files of its disk can't be unpacked", details=error.details) from error
    except OSError as error:
        raise DriverFailed(f"the files of its disk can't be unpacked: {reason(error)}") from error
    finally:
        container.clear()
    source.unlink()
    return container.machine


def _unpack(source: Path, target: Path, layout: Layout) -> None:
    """The namespace has ids that no container gets; the file system keeps none of them."""
    whole = mounts.Ids(((0, LAST_ID, IDS),), ((0, LAST_ID, IDS),))
    mounted, shown = layout.disk, layout.stage
    # The namespace's root must pass, whatever our umask is.
    for folder in (layout.folder.parent, layout.folder, mounted, shown):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
    run(["mount", "--types", "ext4", "--options", "loop,nodev,nosuid", target, mounted])
    binds.mount(mounted, shown, ids=whole, closed=True)
    with mounts.user_namespace(whole) as namespace:
        inside = ["nsenter", f"--user=/proc/{os.getpid()}/fd/{namespace}"]
        run(["sh", "-c", _READ, "sh", source, *inside, *_TAR, "--extract", "--directory", shown], timeout=LONG)
    # What isn't written yet may not fit.
    run(["umount", shown])
    run(["umount", mounted])

"""System calls of Linux that Python and Debian 12's mount(8) lack: idmapped mounts, and the namespaces for them.

mount_setattr(2), open_tree(2), move_mount(2); the numbers are the same on all processors since Linux 5.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from machine import run

CLONE_NEWNS = 0x00020000
MS_REC, MS_SLAVE, MS_SHARED = 0x4000, 0x80000, 0x100000

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x2, 0x4, 0x100000

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Ids:
    """How a mount shows the owners of files. Each range: the id in the file system, the id shown, how many follow.

    All other owners appear as nobody, and nobody can make files as somebody who isn't among them (EOVERFLOW).
    """

    users: tuple[tuple[int, int, int], ...]
    groups: tuple[tuple[int, int, int], ...]


def unshare(flags: int) -> None:
    """Raises OSError, as everything here."""
    _checked(_libc.unshare(flags), "unshare")


def apart(work: Callable[[], None]) -> None:
    """Do the work in a mount namespace of its own, which ends with the processes that the work leaves in it.

    The work runs in a thread, because a namespace is a thread's; so the other threads see none of its mounts.
    """
    failed: list[BaseException] = []

    def isolated() -> None:
        try:
            unshare(CLONE_NEWNS)
            set_propagation(Path("/"), MS_REC | MS_SLAVE)
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=isolated)
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()  # what it does must have ended before it is undone; Ctrl-C reaches its commands, too
        raise
    if failed:
        raise failed[0]


def enter(process: int, kind: str) -> None:
    """Enter a namespace ("mnt") of a process."""
    descriptor = os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(descriptor, 0), f"setns {kind}")
    finally:
        os.close(descriptor)


def set_propagation(path: Path, flags: int) -> None:
    _checked(_libc.mount(None, os.fsencode(path), None, flags, None), f"mount {path}")


def clone(source: Path, *, recursive: bool = False) -> int:
    """A descriptor for a mount of its own of what is at source, which `attach` puts somewhere.

    recursive: with all that is mounted below it.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _checked(_syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open_tree {source}")


def attach(mount: int, target: Path) -> None:
    """Put a mount at target, and close its descriptor."""
    try:
        done = _syscall(_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
        _checked(done, f"move_mount {target}")
    finally:
        os.close(mount)


def adorn(mount: int, *, ids: Ids | None, read_only: bool = False, closed: bool = False) -> None:
    """Set attributes of a mount that isn't attached yet. ids: how its owners appear; None: as they are.

    closed: no device files and no set-user-id programs.
    """
    attributes = _MountAttr()
    attributes.attr_set = (_ATTR_RDONLY if read_only else 0) | ((_ATTR_NOSUID | _ATTR_NODEV) if closed else 0)
    with contextlib.ExitStack() as stack:
        if ids is not None:
            attributes.attr_set |= _ATTR_IDMAP
            attributes.userns_fd = stack.enter_context(user_namespace(ids))
        if attributes.attr_set:
            size = ctypes.sizeof(attributes)
            done = _syscall(_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
            _checked(done, "mount_setattr")


def try_to_adorn(source: Path, ids: Ids | None) -> None:
    """Raise OSError where the file system of source can't show other owners."""
    mount = clone(source)
    try:
        adorn(mount, ids=ids)
    finally:
        os.close(mount)


@contextlib.contextmanager
def user_namespace(ids: Ids) -> Iterator[int]:
    """A descriptor of a user namespace with this map, for users and groups. Needs CAP_SETUID and CAP_SETGID."""
    with run.held(["unshare", "--user", "--", "sh", "-c", "echo; read -r end"]) as process:
        for kind, ranges in (("uid", ids.users), ("gid", ids.groups)):
            text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
            Path(f"/proc/{process}/{kind}_map").write_text(text, encoding="ascii")
        descriptor = os.open(f"/proc/{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _syscall(number: int, *arguments: object) -> int:
    done: int = _libc.syscall(ctypes.c_long(number), *arguments)
    return done


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result

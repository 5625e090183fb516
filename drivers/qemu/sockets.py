"""The way to a machine's sockets: the path of a Unix socket has room for 107 bytes on Linux, for 103 on macOS.

They lie in the machine's home. Where that path is longer, QEMU and we go by a short symbolic link to the home. It holds
nothing itself, so each process makes it when it misses it: what clears /tmp up may take it away at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
from pathlib import Path

from machine.errors import CheckFailed
from machine.paths import same

from .argv import AGENT, MONITOR, PORTS_MONITOR, RESUME

# Without the closing zero (unix(7); sys/un.h of macOS).
ROOM = 103 if sys.platform == "darwin" else 107
LONGEST = max(AGENT, MONITOR, PORTS_MONITOR, RESUME, key=len)
# Not $TMPDIR: on macOS that is long itself, and the helper of a machine may have another than the next command.
PLACE = Path("/tmp")


def reach(path: Path) -> Path:
    """The socket of that path in a home, by a path that is short enough. Raises CheckFailed."""
    return folder(path.parent) / path.name


def folder(home: Path) -> Path:
    """The home itself where its sockets' paths are short enough, else a link to it. Raises CheckFailed."""
    if _fits(home):
        return home
    link = _link(home)
    for _ in range(3):
        check(home)
        try:
            _make(link, home)
        except FileNotFoundError:  # the last machine that had a link has just removed the folder
            continue
        except OSError as error:
            raise _too_long(f"{link} can't be made: {error.strerror}") from error
        break
    return link


def check(home: Path) -> None:
    """Raise CheckFailed when the path is too long, and there can be no link. Writes nothing."""
    if _fits(home):
        return
    links = _link(home).parent
    with contextlib.suppress(FileNotFoundError):
        found = links.lstat()
        # Whoever owned it could lead our commands to a machine of his.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise _too_long(f"{links} isn't a folder of yours")


def _too_long(why: str) -> CheckFailed:
    return CheckFailed(
        f"the path of the store is too long for a socket, and {why}",
        hint="choose a shorter one: MACHINE_STORAGE_PATH=/tmp/machine",
    )


def forget(home: Path) -> None:
    """Remove the links to the home, each made for another spelling of its path, and their folder with the last one."""
    if sys.platform == "win32":
        return
    links = _link(home).parent
    with contextlib.suppress(OSError):
        for link in list(links.iterdir()):
            if same(link, home) or link == _link(home):
                link.unlink()
        links.rmdir()


def _make(link: Path, home: Path) -> None:
    with contextlib.suppress(OSError):
        if same(link.readlink(), home):
            return
    link.parent.mkdir(mode=0o700, exist_ok=True)
    new = link.with_name(f".{secrets.token_hex(6)}")
    new.symlink_to(home)
    try:
        new.replace(link)
    except OSError:
        new.unlink()
        raise


def _fits(home: Path) -> bool:
    return sys.platform == "win32" or len(os.fsencode(home / LONGEST)) <= ROOM


def _link(home: Path) -> Path:
    return PLACE / f"machine-{os.getuid()}" / hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]

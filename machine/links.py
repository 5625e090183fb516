"""Symbolic links to machines' folders in /tmp/machine-UID, whose paths are short and have no blanks.

The path of a Unix socket must be short (SOCKET_ROOM), and a shell splits the output of `$(machine config)` at blanks,
even inside quotes. A cleaner of /tmp may remove a link at any time, so each command makes it again if it is missing.
`rm` of the machine removes it.
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
from machine.reasons import reason

# The most bytes of a Unix socket's path, without its closing zero (unix(7); sys/un.h of macOS).
SOCKET_ROOM = 103 if sys.platform == "darwin" else 107
# Not $TMPDIR: on macOS that is long itself, and a machine's helper may have another one than the next command.
PLACE = Path("/tmp")


def way(folder: Path) -> Path:
    """The link to the folder, made if necessary. Not for Windows. Raises CheckFailed."""
    link = _link(folder)
    for _ in range(3):
        check(folder)
        try:
            _make(link, folder)
            check(folder)  # somebody else may have made that place since
        except FileNotFoundError:  # the last machine that had a link has just removed the place
            continue
        except OSError as error:
            raise CheckFailed(f"{link} can't be made: {reason(error)}", hint=f"rm -r {link}") from error
        break
    return link


def check(folder: Path) -> None:
    """Raise CheckFailed when no link can be made. Writes nothing."""
    links = _link(folder).parent
    with contextlib.suppress(FileNotFoundError):
        found = links.lstat()
        # Its owner could redirect our commands to another machine.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise CheckFailed(f"{links} isn't a folder of yours", hint=f"ls -ld {links}")


def forget(folder: Path) -> None:
    """Remove all links to the folder (one for each spelling of its path), and their place if it is empty."""
    if sys.platform == "win32":
        return
    links = _link(folder).parent
    with contextlib.suppress(OSError):
        for link in list(links.iterdir()):
            if same(link, folder) or link == _link(folder):
                link.unlink()
        links.rmdir()


def _make(link: Path, folder: Path) -> None:
    with contextlib.suppress(OSError):
        if same(link.readlink(), folder):
            return
    link.parent.mkdir(mode=0o700, exist_ok=True)
    new = link.with_name(f".{secrets.token_hex(6)}")
    new.symlink_to(folder)
    try:
        new.replace(link)
    except OSError:
        new.unlink()
        raise


def _link(folder: Path) -> Path:
    return PLACE / f"machine-{os.getuid()}" / hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]

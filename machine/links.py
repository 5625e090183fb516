"""Short ways to machines' folders: symbolic links in /tmp/machine-UID, whose paths are short and free of blanks.

The path of a Unix socket must be short (SOCKET_ROOM), and what a shell puts in for `$(machine config)` is split at
blanks, whatever quotes are in it. A link holds nothing itself, so each command makes it when it misses it: what clears
/tmp up may take it away at any time. It goes with its machine.
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

# Bytes that the path of a Unix socket may have, its closing zero left out (unix(7); sys/un.h of macOS).
SOCKET_ROOM = 103 if sys.platform == "darwin" else 107
# Not $TMPDIR: on macOS that is long itself, and the helper of a machine may have another than the next command.
PLACE = Path("/tmp")


def way(home: Path) -> Path:
    """A link to the folder, which is made if need be. Not on Windows. Raises CheckFailed."""
    link = _link(home)
    for _ in range(3):
        check(home)
        try:
            _make(link, home)
            check(home)  # somebody else may have made the folder since
        except FileNotFoundError:  # the last machine that had a link has just removed the folder
            continue
        except OSError as error:
            raise CheckFailed(f"{link} can't be made: {reason(error)}", hint=f"rm -r {link}") from error
        break
    return link


def check(home: Path) -> None:
    """Raise CheckFailed when there can be no link. Writes nothing."""
    links = _link(home).parent
    with contextlib.suppress(FileNotFoundError):
        found = links.lstat()
        # Whoever owned it could lead our commands to a machine of his.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise CheckFailed(f"{links} isn't a folder of yours", hint=f"ls -ld {links}")


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


def _link(home: Path) -> Path:
    return PLACE / f"machine-{os.getuid()}" / hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:16]

"""The way to a machine's sockets: the path of a Unix socket has room for 107 bytes on Linux, for 103 on macOS.

They lie in the machine's folder. Where that path is longer, QEMU and we go by a short symbolic link to the folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from machine import links
from machine.errors import CheckFailed

from .argv import AGENT, MONITOR, PORTS_MONITOR, RESUME

LONGEST = max(AGENT, MONITOR, PORTS_MONITOR, RESUME, key=len)


def reach(path: Path) -> Path:
    """The socket of that path in a folder, by a path that is short enough. Raises CheckFailed."""
    return way(path.parent) / path.name


def way(folder: Path) -> Path:
    """The folder itself where its sockets' paths are short enough, else a link to it. Raises CheckFailed."""
    if _fits(folder):
        return folder
    try:
        return links.way(folder)
    except CheckFailed as error:
        raise _too_long(error) from error


def check(folder: Path) -> None:
    """Raise CheckFailed when the path is too long, and there can be no link. Writes nothing."""
    if _fits(folder):
        return
    try:
        links.check(folder)
    except CheckFailed as error:
        raise _too_long(error) from error


def _too_long(why: CheckFailed) -> CheckFailed:
    return CheckFailed(
        f"the path of the store is too long for a socket, and {why}",
        hint="export MACHINE_STORAGE_PATH=/tmp/machine",
    )


def _fits(folder: Path) -> bool:
    return sys.platform == "win32" or len(os.fsencode(folder / LONGEST)) <= links.SOCKET_ROOM

"""One-time tokens, for a server that every process of the guest may connect to.

A folder is then mounted as /TOKEN/PATH. The guest's mount table shows the token to everybody; by then it is spent. A
token is an empty file of the machine's folder, and whoever removes it has spent it: no two servers can.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

# On the command line of a server that asks for them.
WORD = "--with-tokens"
_PREFIX = ".token-"
_MOUNTED = re.compile(rb"/([0-9a-f]{32})(/.*)", re.DOTALL)


def issue(machine_folder: Path) -> str:
    """A new token of 128 bits. Raises OSError."""
    token = secrets.token_hex(16)
    os.close(os.open(machine_folder / f"{_PREFIX}{token}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return token


def spend(machine_folder: Path, path: bytes) -> bytes | None:
    """The folder's path of /TOKEN/PATH; None without a token that was issued and isn't spent."""
    if not (found := _MOUNTED.fullmatch(path)):
        return None
    try:
        (machine_folder / f"{_PREFIX}{found[1].decode()}").unlink()
    except OSError:
        return None
    return found[2]


def withdraw(machine_folder: Path) -> None:
    """Remove all that aren't spent."""
    for left in machine_folder.glob(f"{_PREFIX}*"):
        left.unlink(missing_ok=True)

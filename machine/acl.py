"""Folders of Windows that their owner alone may read, which on POSIX a mode says.

Python's mkdir(mode=0o700) makes an entry for OWNER RIGHTS there (since 3.11.10 and 3.12.4), and ssh.exe refuses a key
that has one. So a folder is made as it comes, and given to the user and to the system by their SIDs, whose names are
other ones in each language; what is made in it inherits that.
"""

from __future__ import annotations

import re
from pathlib import Path

from machine import run as runner
from machine.errors import DriverFailed
from machine.run import Run

# LocalSystem; winnt.h, "well-known SIDs".
SYSTEM = "S-1-5-18"
TIMEOUT = 30.0
_SID = re.compile(r"S-1-[0-9-]+")


def make_private(folder: Path, run: Run = runner.run) -> None:
    """Let nobody but the user and the system into the folder, and what will be made in it.

    Raises MachineError, also where the file system has no access control lists (FAT).
    """
    grants = [f"*{sid}:(OI)(CI)F" for sid in (_user(run), SYSTEM)]
    run(["icacls", folder, "/inheritance:r", "/grant:r", *grants, "/q"], timeout=TIMEOUT)


def _user(run: Run) -> str:
    """The user's SID, of a line such as "pc\\ann","S-1-5-21-1-2-3-1001"."""
    told = run(["whoami", "/user", "/fo", "csv", "/nh"], timeout=TIMEOUT).stdout
    if found := _SID.findall(told):
        return str(found[-1])  # a name may look like one, and comes first
    raise DriverFailed("whoami doesn't print who you are", details=told)

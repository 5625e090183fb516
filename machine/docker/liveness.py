"""What the helper of a running machine knows of its Docker, so that others needn't ask over TLS.

`docker.json` in the machine's folder: {"version": "28.5.1"}. The helper asks Docker every minute at least, and touches
the file at each answer; it removes the file when Docker doesn't answer. So the file's age is that of the last answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from machine.paths import MachineFolder

NOTE = "docker.json"
# Seconds that an answer counts: a helper's interval (forwarding.RELIST), and a while for a slow Docker.
LASTS = 75.0


def note(folder: MachineFolder, version: str) -> None:
    """Docker of that version has answered just now; "" is something else, which is asked again. Raises OSError."""
    from machine import files

    if _read(folder) == version != "":
        os.utime(folder / NOTE)
    elif version:
        files.write(folder / NOTE, json.dumps({"version": version}))


def forget(folder: MachineFolder) -> None:
    """Docker doesn't answer, or the machine begins anew."""
    with contextlib.suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)


def version(folder: MachineFolder) -> str:
    """Docker's version, if it answered within the last LASTS seconds, else ""."""
    try:
        age = time.time() - (folder / NOTE).stat().st_mtime
    except OSError:
        return ""
    # A clock that was set back leaves a file of the future.
    return _read(folder) if -1 < age < LASTS else ""


def _read(folder: MachineFolder) -> str:
    try:
        noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    found = noted.get("version") if isinstance(noted, dict) else None
    return found if isinstance(found, str) else ""

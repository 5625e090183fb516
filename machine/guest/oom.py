"""Programs that a guest's kernel killed because memory ran out. The kernel logs that on the console, a file on the
host.

A container that reaches its own limit (docker run --memory) doesn't count: Docker reports that (OOMKilled).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from machine.paths import MachineFolder
from machine.resources import human

# Bytes: only the end of a long console is read each time.
_TAIL = 4 << 20
# mm/oom_kill.c, __oom_kill_process; with loglevel=4 a line of this level is on the console.
_KILLED = re.compile(
    rb"Out of memory(?: \([a-z_]+\))?: Killed process \d+ \(([^\n]{1,64}?)\) total-vm:\d+kB, anon-rss:(\d+)kB"
)


def warning(folder: MachineFolder) -> str:
    """The programs killed since the machine's start, in a sentence, "" for none; each start begins a new console."""
    killed = _KILLED.findall(_tail(folder.console))
    if not killed:
        return ""
    name, kib = killed[-1]
    last = f"{name.decode('ascii', 'replace')} ({human(int(kib) >> 10)})"
    count = f"{len(killed)} programs were killed, {last} last" if len(killed) > 1 else f"{last} was killed"
    return f"its memory ran out: {count}; give it more: machine set --memory SIZE {folder.name}"


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read(_TAIL)
    except OSError:
        return b""

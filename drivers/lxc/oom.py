"""Programs that the kernel killed because a container's memory ran out, as the kernel's log tells it.

The control group's own counters don't: those of version 1 count what happens in this one group only, and Docker's
containers have groups below it. One that reaches its own limit (docker run --memory) isn't meant: Docker reports that.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")
# A record begins with its level, number, microseconds since the boot; the rest is of Linux' mm/oom_kill.c. oom_memcg
# is the group whose limit was reached. LXC adds a number to a group's name where one of an earlier run is left.
_KILLED = re.compile(
    rb"\d+,\d+,(\d+),[^;]*;oom-kill:[^\n]*,oom_memcg=/lxc\.payload\.([0-9a-f-]{36})[^,/]*,[^\n]*,task=([^\n]*),pid="
)
# Bytes: the longest record.
_RECORD = 8192


def warning(name: str, uuid: str, process: int) -> str:
    """The programs killed since the machine's start, in a sentence; "" for none, and where root may not read the log.

    process: the container's init.
    """
    began = _began(process)
    killed = [
        match[3].decode("ascii", "replace")
        for match in _matches()
        if match[2].decode() == uuid and int(match[1]) > began
    ]
    if not killed:
        return ""
    count = f"{len(killed)} programs were killed, {killed[-1]} last" if len(killed) > 1 else f"{killed[-1]} was killed"
    return f"its memory ran out: {count}; give it more: machine set --memory SIZE {name}"


def _began(process: int) -> int:
    """When the process began, in microseconds since the boot (proc(5), starttime)."""
    stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[19]) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def _matches() -> Iterator[re.Match[bytes]]:
    with contextlib.suppress(OSError):
        descriptor = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
        try:
            for record in _records(descriptor):
                if match := _KILLED.match(record):
                    yield match
        finally:
            os.close(descriptor)


def _records(descriptor: int) -> Iterator[bytes]:
    """Until the newest; records that are overwritten meanwhile (EPIPE) are passed over."""
    while True:
        try:
            record = os.read(descriptor, _RECORD)
        except BrokenPipeError:
            continue
        except BlockingIOError:
            return
        if not record:
            return
        yield record

"""Checks inside a running machine, in one call over SSH: its clock, its disk, its name server."""

from __future__ import annotations

import time
from collections.abc import Iterator

from machine.errors import MachineError
from machine.findings import Finding, Level
from machine.ssh.remote import Shell

# Seconds by which a machine's clock may differ. Smaller differences are harmless to TLS and builds.
SKEW = 3.0
# Percent of the data disk.
FULL = 85
# RFC 6761 reserves the name: a name server that works answers that it doesn't exist.
_SCRIPT = """
date +%s
(df -Pk /var/lib/docker 2>/dev/null || df -Pk /) | tail -n 1
if command -v nslookup >/dev/null; then
    timeout 8 nslookup invalid. 2>&1 | grep -qiE 'timed out|no servers|refused|unreachable' && echo dead || echo answers
else
    echo unknown
fi
"""


def look(name: str, shell: Shell) -> Iterator[Finding]:
    """One finding for each check; a machine that can't be asked is one finding."""
    before = time.time()
    try:
        printed = shell.run(["sh", "-c", _SCRIPT], timeout=30).stdout.splitlines()
        clock, disk, name_server = float(printed[0]), printed[1].split(), printed[2]
    except MachineError as error:
        yield Finding(name, Level.ERROR, error.message, error.hint)
        return
    except (IndexError, ValueError):
        yield Finding(name, Level.WARNING, "its answer over SSH is malformed", f"machine ssh {name}")
        return
    yield _clock(name, shell, clock, before, time.time())
    yield from _disk(name, disk)
    yield _name_server(name, name_server)


def _clock(name: str, shell: Shell, clock: float, before: float, after: float) -> Finding:
    """clock is a whole second, read between before and after."""
    skew = clock - after if clock > after else min(0.0, clock + 1 - before)
    if abs(skew) <= SKEW:
        return Finding(name, Level.OK, "its clock is right")
    text = f"its clock is {abs(skew):.0f} s {'fast' if skew > 0 else 'slow'}"
    return Finding(name, Level.ERROR, text, "machine doctor --repair", lambda: set_clock(shell))


def set_clock(shell: Shell) -> None:
    shell.run(["date", "-s", f"@{time.time():.0f}"])


def _disk(name: str, fields: list[str]) -> Iterator[Finding]:
    """fields: the columns that df prints; no finding when they hold no percentage."""
    percent = fields[4].rstrip("%") if len(fields) > 4 else ""
    if not percent.isdigit():
        return
    text = f"its disk is {percent} % full"
    if int(percent) >= FULL:
        yield Finding(name, Level.WARNING, text, f"machine ssh {name} docker system prune")
    else:
        yield Finding(name, Level.OK, text)


def _name_server(name: str, answer: str) -> Finding:
    if answer == "dead":
        return Finding(name, Level.ERROR, "its name server doesn't answer", f"machine restart {name}")
    text = "its name server answers" if answer == "answers" else "its name server wasn't tested: it has no nslookup"
    return Finding(name, Level.OK, text)

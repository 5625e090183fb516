"""A look into a running machine, in one call over SSH: its clock, its disk, its name server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from machine import remote
from machine.errors import MachineError
from machine.paths import Home
from machine.spec import Address, Machine

# Seconds by which a machine's clock may differ: TLS and builds don't mind less.
SKEW = 3.0
# Percent of the data disk.
FULL = 85
# A name server that answers says that there is no such name (RFC 6761 reserves it); one that doesn't says nothing.
_LOOK = """
date +%s
(df -Pk /var/lib/docker 2>/dev/null || df -Pk /) | tail -n 1
if command -v nslookup >/dev/null; then
    timeout 8 nslookup invalid. 2>&1 | grep -qiE 'timed out|no servers|refused|unreachable' && echo dead || echo answers
else
    echo unknown
fi
"""
Found = tuple[str, str, str, Callable[[], None] | None]


def look(machine: Machine, home: Home, address: Address) -> Iterator[Found]:
    """(level, what was found, what mends it, a repair) of each."""
    shell = remote.OverSsh(home, address, machine.ssh_user)
    before = time.time()
    try:
        printed = shell.run(["sh", "-c", _LOOK], timeout=30).stdout.splitlines()
        clock, disk, names = float(printed[0]), printed[1].split(), printed[2]
    except MachineError as error:
        yield "error", error.message, error.hint, None
        return
    except (IndexError, ValueError):
        yield "warning", "it doesn't say how it is", f"machine ssh {machine.name}", None
        return
    yield from _clock(machine, shell, clock, before, time.time())
    yield from _disk(machine, disk)
    if names == "dead":
        yield "error", "its name server doesn't answer", f"machine restart {machine.name}", None
    else:
        yield "ok", "its name server answers" if names == "answers" else "its name server wasn't asked", "", None


def _clock(machine: Machine, shell: remote.Remote, clock: float, before: float, after: float) -> Iterator[Found]:
    """clock is a whole second, read between before and after."""
    skew = clock - after if clock > after else min(0.0, clock + 1 - before)
    if abs(skew) > SKEW:
        yield (
            "error",
            f"its clock is {abs(skew):.0f} s {'fast' if skew > 0 else 'slow'}",
            "machine doctor --repair",
            lambda: set_clock(shell),
        )
    else:
        yield "ok", "its clock is right", "", None


def set_clock(shell: remote.Remote) -> None:
    shell.run(["date", "-s", f"@{time.time():.0f}"])


def _disk(machine: Machine, fields: list[str]) -> Iterator[Found]:
    used = int(fields[4].rstrip("%")) if len(fields) > 4 and fields[4].rstrip("%").isdigit() else None
    if used is not None and used >= FULL:
        yield "warning", f"its disk is {used} % full", f"machine ssh {machine.name} docker system prune", None
    elif used is not None:
        yield "ok", f"its disk is {used} % full", "", None

"""The guest's clock after the host slept: it stood still meanwhile, and is stepped to the host's.

A host that sleeps stops its monotonic clock (Linux CLOCK_MONOTONIC, macOS mach_absolute_time) and not its wall clock:
so the two are further apart afterwards. The same shows when somebody sets the host's clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from machine.errors import DriverFailed
from machine.paths import MachineFolder

from .argv import AGENT
from .qmp import GuestAgent

# Seconds. Within 5 after the host woke up, the guest's clock must be right.
INTERVAL = 1.0
JUMP = 1.0


class Jumps:
    """Whether the host's clock has jumped since it was asked last. wall and steady in seconds."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self.steady = steady
        self.apart = wall() - steady()

    def seen(self) -> bool:
        apart = self.wall() - self.steady()
        jumped = abs(apart - self.apart) > JUMP
        # Slow drift, which the host corrects bit by bit (NTP), isn't added up.
        self.apart = apart
        return jumped


def follow(folder: MachineFolder, jumps: Jumps, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Step the guest's clock after each jump of the host's, for as long as the process lives.

    A guest that doesn't answer yet is asked again: its agent may be busy, or the guest paused.
    """
    due = False
    while True:
        due = jumps.seen() or due
        if due:
            with contextlib.suppress(DriverFailed, OSError), GuestAgent(folder / AGENT) as agent:
                agent.set_time()
                due = False
        pause(INTERVAL)

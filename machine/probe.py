"""Ask many hypervisors at once, so that a slow one doesn't delay the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from machine.reasons import reason

# Probes mostly wait; so many at once hide that without a storm of hypervisor commands.
AT_ONCE = 16


def together(jobs: Sequence[Callable[[], None]], *, timeout: float) -> list[bool]:
    """Do the jobs, several at once, each within timeout seconds; False stands for one that took longer.

    A job that takes longer is left to itself and another takes its place; its thread doesn't keep the process from
    ending. (concurrent.futures waits for every thread at exit, and takes 10 ms to import.)
    """
    import threading
    from queue import Empty, SimpleQueue

    ended: SimpleQueue[int] = SimpleQueue()
    in_time = [False] * len(jobs)
    waiting = list(reversed(range(len(jobs))))
    deadlines: dict[int, float] = {}

    def work(number: int) -> None:
        try:
            jobs[number]()
        except Exception as error:  # a fault in a driver must not hide the other machines
            print(f"warning: a driver has a fault: {reason(error)}", file=sys.stderr)
        ended.put(number)

    while waiting or deadlines:
        while waiting and len(deadlines) < AT_ONCE:
            number = waiting.pop()
            deadlines[number] = time.monotonic() + timeout
            threading.Thread(target=work, args=(number,), daemon=True).start()
        try:
            number = ended.get(timeout=max(0.0, min(deadlines.values()) - time.monotonic()))
        except Empty:
            now = time.monotonic()
            deadlines = {number: until for number, until in deadlines.items() if until > now}
        else:
            if deadlines.pop(number, None) is not None:
                in_time[number] = True
    return in_time

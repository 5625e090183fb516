"""Ask many hypervisors at once, so that a slow one doesn't delay the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from machine.reasons import reason

# Probes mostly wait; so many at once hide that without a storm of hypervisor commands.
AT_ONCE = 16


def together(jobs: Sequence[Callable[[], None]], *, timeout: float) -> list[bool]:
    """Do the jobs, several at once, each within timeout seconds; False stands for one that took longer."""
    ended = {number: ok for group in as_they_end(jobs, timeout=timeout) for number, ok in group.items()}
    return [ended[number] for number in range(len(jobs))]


def as_they_end(
    jobs: Sequence[Callable[[], None]], *, timeout: float, first: float = float("inf")
) -> Iterator[dict[int, bool]]:
    """Do the jobs, several at once, each within timeout seconds; yield the numbers of those that have ended.

    All that ended in the first seconds come together, after that each by itself. False stands for a job that took
    longer than timeout: it is left to itself and another takes its place; its thread doesn't keep the process from
    ending. (concurrent.futures waits for every thread at exit, and takes 10 ms to import.)
    """
    import threading
    from queue import Empty, SimpleQueue

    ended: SimpleQueue[int] = SimpleQueue()
    waiting = list(reversed(range(len(jobs))))
    deadlines: dict[int, float] = {}
    together_until = time.monotonic() + first
    group: dict[int, bool] = {}

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
        until = min(deadlines.values())
        if group:
            until = min(until, together_until)
        try:
            number = ended.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            now = time.monotonic()
            for number in [number for number, until in deadlines.items() if until <= now]:
                del deadlines[number]
                group[number] = False
        else:
            if deadlines.pop(number, None) is not None:
                group[number] = True
        if group and time.monotonic() >= together_until:
            yield group
            group = {}
    if group:
        yield group

"""Waits with a deadline and a name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from machine.errors import WaitTimeout

T = TypeVar("T")

# Ctrl-C reaches the main thread only. Raise once per thread, so that its clean-up can still wait.
_interrupted = threading.Event()
_told = threading.local()


def interrupt() -> None:
    """End the waits of the other threads with KeyboardInterrupt, because the user has pressed Ctrl-C."""
    _told.already = True
    _interrupted.set()


def until(
    probe: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    interval: float = 0.05,
    slowest: float = 0.5,
    details: Callable[[], str] = str,
    pause: Callable[[float], None] | None = None,
) -> T:
    """Call probe until it returns something true, and return that.

    timeout in seconds. The pause between two calls grows from interval to slowest seconds, so that a quick result is
    seen at once and a slow one costs little. pause(seconds) sleeps, and may return early. Raises WaitTimeout, which
    names what was awaited; its details are those that details() returns at that moment.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := probe():
            return result
        left = deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(what, timeout, details=details())
        (pause or time.sleep)(min(interval, left))
        interval = min(interval * 1.2, slowest)
        _end_when_interrupted()


def _end_when_interrupted() -> None:
    if _interrupted.is_set() and not getattr(_told, "already", False):
        _told.already = True
        raise KeyboardInterrupt

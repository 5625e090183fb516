"""Waiting, with a deadline and a name for what is awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from machine.errors import WaitTimeout

T = TypeVar("T")


def until(
    probe: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    interval: float = 0.05,
    slowest: float = 0.5,
    details: Callable[[], str] = str,
) -> T:
    """Call probe until it returns something true, and return that.

    timeout in seconds. The pause between two calls grows from interval to slowest, so that a quick thing is seen at
    once and a slow one costs little. Raises WaitTimeout naming what was awaited, with details() taken at that moment.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := probe():
            return result
        left = deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(what, timeout, details=details())
        time.sleep(min(interval, left))
        interval = min(interval * 1.2, slowest)

from __future__ import annotations

import threading
import time

from machine import probe


def test_together_tells_who_was_in_time() -> None:
    began = time.monotonic()
    hung = threading.Event()

    def hang() -> None:
        hung.wait(30)

    jobs = [lambda: None, hang, lambda: time.sleep(0.01)]
    assert probe.together(jobs, timeout=0.2) == [True, False, True]
    assert time.monotonic() - began < 2
    hung.set()
    assert probe.together([], timeout=1) == []


def test_not_too_many_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    assert all(probe.together([job] * 50, timeout=5))
    assert 1 < most <= probe.AT_ONCE

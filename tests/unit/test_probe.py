from __future__ import annotations

import threading
import time

from machine import probe


def test_together_tells_who_was_in_time() -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def hang() -> None:
        goes_on.wait(300)
        ended.set()

    jobs = [lambda: None, hang, lambda: time.sleep(0.01)]
    assert probe.together(jobs, timeout=2) == [True, False, True]
    assert not ended.is_set(), "nobody waits for it"
    goes_on.set()
    assert ended.wait(60)
    assert probe.together([], timeout=1) == []


def test_not_too_many_at_once() -> None:
    running, most, lock, all_at_once = 0, 0, threading.Lock(), threading.Event()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == probe.AT_ONCE:
                all_at_once.set()
        all_at_once.wait(60)
        with lock:
            running -= 1

    assert all(probe.together([job] * 50, timeout=120))
    assert most == probe.AT_ONCE

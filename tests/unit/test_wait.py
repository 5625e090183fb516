import threading
from types import SimpleNamespace

import pytest

from machine import wait
from machine.errors import WaitTimeout


def test_the_first_true_answer_is_returned() -> None:
    answers = iter([None, 0, "", "here"])
    assert wait.until(lambda: next(answers), timeout=60, what="it", interval=0.001) == "here"


def test_a_timeout_names_what_was_awaited_and_takes_the_details_at_that_moment() -> None:
    asked = []
    with pytest.raises(WaitTimeout, match="timed out after 0 s waiting for Docker") as caught:
        wait.until(lambda: None, timeout=0.02, what="Docker", interval=0.005, details=lambda: asked.append(1) or "why")
    assert (caught.value.what, caught.value.details, asked) == ("Docker", "why", [1])


def test_it_asks_once_even_without_time() -> None:
    assert wait.until(lambda: 1, timeout=0, what="it") == 1
    with pytest.raises(WaitTimeout):
        wait.until(lambda: 0, timeout=-1, what="it")


def test_the_pauses_grow_up_to_the_slowest_and_never_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with pytest.raises(WaitTimeout):
        wait.until(lambda: None, timeout=10, what="it")
    assert pauses[0] == 0.05
    assert max(pauses) == 0.5
    assert sum(pauses) == pytest.approx(10)


def test_an_error_of_the_probe_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait.until(lambda: 1 / 0, timeout=5, what="it")


def test_an_interrupt_ends_the_wait_of_each_thread_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_interrupted", threading.Event())
    monkeypatch.setattr(wait, "_told", threading.local())
    ended = []

    def work() -> None:
        try:
            wait.until(lambda: None, timeout=600, what="Docker")
        except KeyboardInterrupt:
            answers = iter([0, 0, 1])
            ended.append(wait.until(lambda: next(answers), timeout=60, what="the undoing", interval=0.001))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait.interrupt()
    for thread in threads:
        thread.join(timeout=60)
    assert ended == [1, 1]

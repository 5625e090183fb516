"""Locks between commands: each wait has a deadline and a name, and nothing else waits for a lock."""

from __future__ import annotations

import ast
import itertools
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from machine import locks, wait
from machine.errors import WaitTimeout
from tests.unit.test_imports import SOURCES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_a_free_lock_is_taken_in_silence(path: Path) -> None:
    said: list[str] = []
    with locks.held(path, what="another", timeout=1, say=said.append):
        assert not locks.attempt(FileLock(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert locks.attempt(FileLock(path))
    assert said == []


def test_who_waits_is_told_and_gets_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MOMENT", 0.0)
    holder = FileLock(path, thread_local=False)
    holder.acquire(timeout=0)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        holder.release()

    with locks.held(path, what="another command to finish", timeout=120, say=say):
        assert said == ["waiting for another command to finish"]


def test_after_the_deadline_it_is_said_what_was_awaited(path: Path) -> None:
    with (
        FileLock(path),
        pytest.raises(WaitTimeout, match="waiting for another command to finish") as caught,
        locks.held(path, what="another command to finish", timeout=0.05),
    ):
        pytest.fail("not reached")
    assert caught.value.hint.endswith(f"lsof {path}")


def test_one_that_gets_on_is_waited_for(path: Path) -> None:
    """As a download does: the deadline counts from its last sign."""
    holder = FileLock(path, thread_local=False)
    holder.acquire(timeout=0)
    signs = itertools.count()

    def sign() -> int:
        if (number := next(signs)) > 8:
            holder.release()
        return min(number, 20)

    with locks.held(path, what="another", timeout=0.01, sign=sign):
        assert next(signs) > 8


def test_ctrl_c_ends_the_wait_of_a_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_interrupted", threading.Event())
    ended: list[type[BaseException]] = []

    def work() -> None:
        try:
            with locks.held(path, what="another", timeout=120):
                pass
        except KeyboardInterrupt as error:
            ended.append(type(error))

    with FileLock(path):
        thread = threading.Thread(target=work)
        thread.start()
        wait._interrupted.set()
        thread.join(60)
    assert ended == [KeyboardInterrupt]


@pytest.mark.parametrize("module", SOURCES)
def test_nobody_waits_for_a_lock_without_a_deadline(module: str) -> None:
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        calls = [item.context_expr for item in node.items] if isinstance(node, ast.With) else []
        calls += [node] if isinstance(node, ast.Call) and _name(node) == "acquire" else []
        for call in calls:
            if isinstance(call, ast.Call) and _name(call) in {"FileLock", "acquire"}:
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert "timeout" in given or given.get("blocking") == "False", f"{module}:{call.lineno}"


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")

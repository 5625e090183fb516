"""machine set."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from machine import store
from machine.spec import Machine
from tests.conftest import Outcome

Add = Callable[..., Machine]
Invoke = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "1G"), 'Machine "dev": Memory changed now.'),
        (("--disk", "25G"), 'Machine "dev": Disk changed now.'),
        (
            ("--cpus", "1"),
            'Machine "dev": Processors will change at the next start: machine restart dev',
        ),
        (
            ("--memory", "1024", "--disk", "25000", "--cpus", "1"),
            'Machine "dev": Memory and disk changed now. Processors will change at the next start: machine restart dev',
        ),
        (("-m", "2G", "--cpus", "2"), 'Machine "dev" is so already.'),
    ],
)
def test_it_tells_when_what_changes(invoke: Invoke, add: Add, words: tuple[str, ...], line: str) -> None:
    add("dev", state="Running")
    shown = invoke("set", *words, "dev")
    assert (shown.code, shown.out) == (0, f"{line}\n")


def test_sizes_are_kept(invoke: Invoke, add: Add) -> None:
    add("default")
    assert invoke("set", "-q", "--memory", "1.5G", "--disk", "25G", "--cpus", "1").out == ""
    made = store.load("default")
    assert (made.memory_mib, made.disk_mib, made.cpus) == (1536, 25 * 1024, 1)


def test_json(invoke: Invoke, add: Add) -> None:
    add("a")
    add("b", state="Running")
    shown = invoke("set", "--json", "--cpus", "1", "a", "b")
    assert json.loads(shown.out) == [
        {"name": "a", "result": 'Machine "a": Processors changed now.'},
        {"name": "b", "result": 'Machine "b": Processors will change at the next start: machine restart b'},
    ]


def test_nothing_to_set(invoke: Invoke, add: Add) -> None:
    add("dev")
    shown = invoke("set", "dev")
    assert (shown.code, shown.out) == (2, "")
    assert "what is to be set?" in shown.err
    assert "Next: machine set --memory 4G default" in shown.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--disk", "10G"), 3, "a disk can't shrink: it has 19.5 GiB"),
        (("--memory", "much"), 2, "is no size"),
        (("--memory", "0"), 2, "is no size"),
        (("--cpus", "0"), 3, "a machine needs a CPU"),
    ],
)
def test_sizes_that_cant_be(invoke: Invoke, add: Add, words: tuple[str, ...], code: int, message: str) -> None:
    made = add("dev")
    shown = invoke("set", *words, "dev")
    assert (shown.code, shown.out) == (code, "")
    assert message in shown.err
    assert store.load("dev") == made


def test_one_that_fails_keeps_no_other(invoke: Invoke, add: Add) -> None:
    add("a", options={"fails": "resize"})
    add("b")
    shown = invoke("set", "--cpus", "1", "a", "b")
    assert (shown.code, shown.out) == (1, 'Machine "b": Processors changed now.\n')
    assert "Error: a: the fake fails at resize" in shown.err
    assert (store.load("a").cpus, store.load("b").cpus) == (2, 1)

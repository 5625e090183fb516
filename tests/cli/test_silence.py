"""The output of long verbs without a terminal: little, and nothing with --quiet or --json."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import machine_fake
import pytest

from machine import progress, store
from machine.errors import DriverFailed
from machine.images import downloads
from tests.fixture_types import Add, Invoke

# Each verb that shows progress, in an order in which each can be done, and what comes before --quiet and --json.
LIFE = [
    ["create", "dev"],
    ["restart", "dev"],
    ["snapshot", "create", "dev", "one"],
    ["snapshot", "restore", "dev", "one"],
    ["suspend", "dev"],
    ["resume", "dev"],
    ["set", "--memory", "3G", "dev"],
    ["stop", "dev"],
    ["regenerate-certs", "-f", "dev"],
    ["start", "dev"],
    ["upgrade", "dev"],
    ["kill", "dev"],
    ["export", "dev", "dev.machine"],
    ["rm", "-f", "dev"],
    ["import", "dev.machine"],
    ["rm", "-f", "dev"],
]


@pytest.fixture
def talkative(vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that tells each percent of what it does."""
    monkeypatch.chdir(tmp_path)
    for step in ("create", "start", "stop", "kill", "remove"):
        real = getattr(machine_fake.Fake, step)

        def talk(self: machine_fake.Fake, real: Callable[[machine_fake.Fake], None] = real) -> None:
            for percent in range(101):
                self.advance(f"uploading the image: {percent} %")
            self.say("a note")
            real(self)

        monkeypatch.setattr(machine_fake.Fake, step, talk)


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_silent(invoke: Invoke, talkative: None, option: str) -> None:
    for words in LIFE:
        shown = invoke(*words, option)
        assert (shown.code, shown.err) == (0, ""), words
        assert "%" not in shown.out
        if option == "--json":
            json.loads(shown.out)
        else:
            assert shown.out == "", words


def test_a_line_for_each_phase_and_no_more(invoke: Invoke, talkative: None) -> None:
    for words in LIFE:
        shown = invoke(*words)
        assert shown.code == 0, (words, shown.err)
        lines = [line.partition("] ")[2] for line in shown.err.splitlines()]
        assert not [line for line in lines if "%" in line], words
        phases = [line for line in lines if "note:" not in line]
        assert len(phases) == len(set(phases)), words


def test_a_download(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 minutes, of which the network tells every two seconds."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def fetched(wanted: object, folder: Path, say: Callable[[int, int | None], None], *_: object) -> None:
        nonlocal now
        for part in range(150):
            now += 2
            say(part << 20, 150 << 20)
        raise DriverFailed("that is enough")

    monkeypatch.setattr(downloads, "fetched", fetched)
    shown = invoke("image", "pull", f"http://127.0.0.1:1/x.qcow2#sha256={'0' * 64}")
    lines = [line for line in shown.err.splitlines() if re.search("fetching|downloading", line)]
    assert len(lines) == 1 + 300 // progress.INTERVAL
    assert "x: 99 % of 150 MiB, 0.5 MiB/s" in lines[-1]


@pytest.mark.parametrize("option", ["--quiet", "--json", "-q"])
def test_what_a_killed_create_left_is_cleared_without_a_word(
    invoke: Invoke, vms: Path, add: Add, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "sweep", lambda undo: iter([("dev", None)]))
    assert invoke("ls", option).err == ""
    assert "interrupted" in invoke("ls").err


def test_warnings_are_objects_for_programs(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "sweep", lambda undo: iter([("dev", DriverFailed("it can't"))]))
    shown = invoke("ls", "--json")
    assert json.loads(shown.err) == {
        "warning": "the leftovers of the machine dev can't be removed: it can't",
        "hint": "machine rm -f dev",
    }
    assert invoke("ls").err.endswith("it can't\nNext: machine rm -f dev\n")

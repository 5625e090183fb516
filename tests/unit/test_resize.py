"""Other sizes for a machine that is there, by the driver `fake`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import machine_fake
import pytest

from machine import lifecycle, resize, resources, store
from machine.errors import CheckFailed, DriverFailed, MachineError, NoSuchMachine, Usage
from machine.progress import Silent
from tests.fixture_types import Add


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 16 GiB, 8 of them free, and 4 processors."""
    import psutil

    monkeypatch.setattr(resources, "host_memory_mib", lambda: (16 * 1024, 8 * 1024))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)


def test_what_changes_now_and_what_waits(add: Add, notes: Notes) -> None:
    made = add("dev", state="Running")
    assert resize.resize("dev", notes, memory_mib=4096, cpus=4, disk_mib=30000) == (["memory", "disk"], ["processors"])
    assert store.load("dev") == replace(made, memory_mib=4096, cpus=4, disk_mib=30000)
    assert notes.notes == []


def test_all_changes_at_once_when_it_is_off(add: Add, notes: Notes) -> None:
    add("dev")
    assert resize.resize("dev", notes, cpus=3) == (["processors"], [])
    assert store.load("dev").cpus == 3


def test_what_isnt_asked_for_stays(add: Add, notes: Notes) -> None:
    made = add("dev", state="Running")
    assert resize.resize("dev", notes) == ([], [])
    assert resize.resize("dev", notes, memory_mib=2048, cpus=2, disk_mib=20000) == ([], [])
    assert store.load("dev") == made


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"disk_mib": 10000}, "a disk can't shrink: it has 19.5 GiB"),
        ({"memory_mib": 100}, "too little for Docker"),
        ({"memory_mib": 17 * 1024}, "this host has 16 GiB"),
        ({"cpus": 0}, "at least one CPU"),
        ({"cpus": -1}, "at least one CPU"),
    ],
)
def test_sizes_that_cant_be_change_nothing(
    add: Add,
    notes: Notes,
    sizes: dict[str, int],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = add("dev")
    monkeypatch.setattr(machine_fake.Fake, "resize", lambda *_: pytest.fail("resized"))
    with pytest.raises(CheckFailed, match=message):
        resize.resize("dev", notes, **sizes)
    assert store.load("dev") == made


def test_sizes_that_may_hurt_are_noted(add: Add, notes: Notes) -> None:
    add("dev")
    resize.resize("dev", notes, memory_mib=9 * 1024, cpus=8, disk_mib=1 << 40)
    assert [note.partition(", but")[0] for note in notes.notes] == [
        "the machine may take 9 GiB of memory",
        "the machine gets 8 CPUs",
        f"the disk may grow to {1 << 30} GiB",
    ]


def test_a_machine_elsewhere_isnt_checked_against_this_host(
    add: Add, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("dev")
    monkeypatch.setattr(machine_fake.Fake, "is_local", lambda self: False)
    assert resize.resize("dev", notes, memory_mib=1024 * 1024) == (["memory"], [])
    with pytest.raises(CheckFailed, match="can't shrink"):
        resize.resize("dev", notes, disk_mib=10000)


def test_a_driver_that_cant(add: Add, notes: Notes) -> None:
    add("dev", driver="none", options={"url": "tcp://192.0.2.1:2375"})
    with pytest.raises(Usage, match="none machines can't be resized") as caught:
        resize.resize("dev", notes, cpus=3)
    assert caught.value.hint == "machine create dev-2"


def test_a_suspended_machine_is_started_first(add: Add, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add("dev", state="Saved")
    monkeypatch.setattr(machine_fake.Fake, "resize", lambda *_: pytest.fail("resized"))
    with pytest.raises(MachineError, match="is suspended") as caught:
        resize.resize("dev", notes, cpus=3)
    assert caught.value.hint == "machine start dev"
    assert store.load("dev") == made


def test_a_driver_that_fails_leaves_the_old_sizes(add: Add, notes: Notes) -> None:
    made = add("dev", options={"fails": "resize"})
    with pytest.raises(DriverFailed, match="fails at resize"):
        resize.resize("dev", notes, cpus=3)
    assert store.load("dev") == made


def test_a_machine_that_isnt_there(store: Path, notes: Notes) -> None:
    with pytest.raises(NoSuchMachine):
        resize.resize("dev", notes, cpus=3)


# The verbs that meet a suspended machine.


def test_a_suspended_machine_isnt_shut_down(add: Add, notes: Notes) -> None:
    add("dev", state="Saved")
    with pytest.raises(MachineError, match="is suspended") as caught:
        lifecycle.stop("dev", notes)
    assert "machine start dev" in caught.value.hint
    assert "machine kill dev" in caught.value.hint
    assert lifecycle.kill("dev", notes)
    assert not lifecycle.stop("dev", notes)

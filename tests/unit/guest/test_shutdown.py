from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine_fake
import pytest

from machine import create, lifecycle
from machine.docker import api
from machine.errors import DockerFailed, SSHFailed
from machine.guest import shutdown
from machine.images import cache
from machine.progress import Silent
from machine.spec import Machine
from machine.ssh import remote


class Record(Silent):
    """Remembers what was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def phase(self, what: str) -> None:
        self.shown.append(what)

    def note(self, text: str) -> None:
        self.shown.append(f"note: {text}")


@pytest.fixture
def shown() -> Record:
    return Record()


@pytest.fixture
def make(vms: Path) -> Callable[[], Machine]:
    """A machine that runs."""

    def make() -> Machine:
        asked = create.draft("dev", "fake", cache.current("machineos").digest, memory_mib=512, cpus=1, disk_mib=1024)
        return create.create(asked, Silent())

    return make


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was run in the guest."""
    ran: list[str] = []
    monkeypatch.setattr(remote.Shell, "run", lambda self, argv, **_: ran.append(argv[-1]))
    return ran


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The deadlines that a machine was given to be off."""
    timeouts: list[float] = []
    monkeypatch.setattr(shutdown, "await_off", lambda backend, *, timeout: timeouts.append(timeout))
    return timeouts


def containers(monkeypatch: pytest.MonkeyPatch, **stop_timeouts: int | None) -> None:
    """The running containers of the machine's Docker, by the --stop-timeout of each."""

    def get(self: api.Client, path: str) -> Any:
        if path == "/containers/json":
            # As Docker has it for one that another links to: the order is anybody's.
            return [{"Id": f"id-{name}", "Names": [f"/other/{name}", f"/{name}"]} for name in stop_timeouts]
        name = path.split("/")[2].removeprefix("id-")
        if name not in stop_timeouts or name == "ended":
            raise DockerFailed(f"No such container: {name}")
        return {"Config": {"StopTimeout": stop_timeouts[name]}}

    monkeypatch.setattr(api.Client, "get", get)


@pytest.mark.parametrize(
    ("stop_timeouts", "timeout", "phase"),
    [
        ({}, 60, "shutting down"),
        ({"web": None, "cache": 0}, 60, "shutting down"),
        ({"web": None, "db": 90, "queue": 30}, 140, "shutting down: the container db may take up to 90 s"),
        ({"ended": 100, "db": 90}, 140, "shutting down: the container db may take up to 90 s"),
        ({"db": -1}, 60 + 86400 - 10, "shutting down: the container db may take as long as it takes"),
    ],
)
def test_the_slowest_container_gets_its_time(
    make: Callable[[], Machine],
    shown: Record,
    waits: list[float],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    stop_timeouts: dict[str, int | None],
    timeout: float,
    phase: str,
) -> None:
    make()
    containers(monkeypatch, **stop_timeouts)
    assert lifecycle.stop("dev", shown)
    assert (waits, shown.shown, told) == ([timeout], [phase], [])


def test_a_timeout_that_is_long_enough_changes_nothing_in_the_guest(
    make: Callable[[], Machine], shown: Record, waits: list[float], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    containers(monkeypatch, db=90)
    lifecycle.stop("dev", shown, timeout=120)
    assert (waits, told) == ([120], [])


def test_the_guest_is_told_of_a_timeout_that_is_too_short(
    make: Callable[[], Machine], shown: Record, waits: list[float], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    containers(monkeypatch, db=90)
    lifecycle.stop("dev", shown, timeout=30)
    assert waits == [30]
    assert told == ["[ ! -d /run/machineos ] || echo 24 >/run/machineos/stop-timeout"]
    assert shown.shown[-1] == (
        "note: the container db may take up to 90 s, but --timeout allows 24 s: then it is killed"
    )


def test_a_guest_that_cant_be_told_is_shut_down_all_the_same(
    make: Callable[[], Machine], shown: Record, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: object, argv: object, **_: object) -> None:
        raise SSHFailed("no SSH connection")

    make()
    containers(monkeypatch, db=90)
    monkeypatch.setattr(remote.Shell, "run", run)
    lifecycle.stop("dev", shown, timeout=30)
    assert waits == [30]


@pytest.mark.parametrize("answer", [DockerFailed("it hangs"), {}, None, [{}]])
def test_a_docker_that_says_nothing_of_use_doesnt_keep_the_machine_from_shutting_down(
    make: Callable[[], Machine], shown: Record, waits: list[float], monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    def get(self: object, path: str) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    make()
    monkeypatch.setattr(api.Client, "get", get)
    lifecycle.stop("dev", shown)
    assert (waits, shown.shown) == ([60], ["shutting down"])


def test_a_guest_with_many_containers_isnt_asked_for_ever(
    make: Callable[[], Machine], shown: Record, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    containers(monkeypatch, first=20, second=30)
    monkeypatch.setattr(shutdown, "ASKING", -1)
    lifecycle.stop("dev", shown)
    assert shown.shown == ["shutting down: the container first may take up to 20 s"]


def test_the_power_button_is_pressed_again(
    make: Callable[[], Machine], vms: Path, shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    presses = []

    def press(self: machine_fake.Fake) -> None:
        presses.append(1)
        if len(presses) == 3:
            self.kill()

    monkeypatch.setattr(machine_fake.Fake, "stop", press)
    monkeypatch.setattr(shutdown, "PRESS_AGAIN", 0.05)
    assert lifecycle.stop("dev", shown, timeout=120)
    assert len(presses) == 3


def test_the_button_is_pressed_at_once_on_a_host_that_has_just_booted(
    make: Callable[[], Machine], shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    booted = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() - booted + 3)
    monkeypatch.setattr(shutdown, "PRESS_AGAIN", 600)
    assert lifecycle.stop("dev", shown, timeout=120)

"""The step of a guest's clock after its host slept."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine.drivers.qemu import clock
from machine.drivers.qemu.clock import Jumps, follow

from machine.errors import DriverFailed
from machine.paths import MachineFolder


class Host:
    """Both clocks of a host, which sleeps and wakes."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.steady = 50.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def sleeps(self, seconds: float) -> None:
        self.wall += seconds

    def jumps(self) -> Jumps:
        return Jumps(lambda: self.wall, lambda: self.steady)


def test_sleep_is_seen_once() -> None:
    host = Host()
    jumps = host.jumps()
    host.passes(3600)
    assert not jumps.seen()
    host.sleeps(600)
    host.passes(1)
    assert jumps.seen()
    assert not jumps.seen()


def test_a_clock_that_is_set_is_seen_in_both_directions() -> None:
    host = Host()
    jumps = host.jumps()
    host.wall -= 30
    assert jumps.seen()


def test_slow_corrections_are_none() -> None:
    host = Host()
    jumps = host.jumps()
    for _ in range(100):
        host.passes(1)
        host.wall += 0.4
        assert not jumps.seen()


def test_the_guest_is_stepped_within_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    steps: list[float] = []
    pauses: list[float] = []

    class Agent:
        def __init__(self, path: Path) -> None:
            if len(pauses) == 5:
                raise DriverFailed("the guest is busy")

        def __enter__(self) -> Agent:
            return self

        def __exit__(self, *_: object) -> None: ...

        def set_time(self) -> None:
            steps.append(host.steady)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        host.passes(seconds)
        if len(pauses) == 5:
            host.sleeps(7200)
        if len(pauses) > 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(clock, "GuestAgent", Agent)
    with pytest.raises(KeyboardInterrupt):
        follow(MachineFolder(tmp_path), host.jumps(), pause=pause)
    # Awake at 55; the first attempt meets a busy guest.
    assert steps == [56.0]

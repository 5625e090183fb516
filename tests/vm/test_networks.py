"""Networks between machines, with system containers: what the contract doesn't say of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import testbed
from tests.testbed import places, until
from tests.testbed.places import LxcPlace

SIZE = ("--memory", "512M", "--cpus", "1", "--disk", "2G", "--mount", "none")


@pytest.fixture(scope="module")
def place(images: Path) -> Iterator[LxcPlace]:
    """With the machines a and b on the network machines, and c on the network lab."""
    with places.lxc(images) as place:
        testbed.say("creating three system containers")
        place.create("a", *SIZE)
        place.create("b", *SIZE)
        place.machine("network", "create", "lab")
        place.create("c", *SIZE, "--network", "lab")
        yield place
        place.close()


def inspect(place: LxcPlace, network: str) -> dict[str, dict[str, object]]:
    found = json.loads(place.machine("network", "inspect", network).out)
    return {one["name"]: one for one in found["machines"]}


def answers(place: LxcPlace, one: str, other: str) -> bool:
    done = place.machine("ssh", one, f"nc -w 10 {other} 22 </dev/null", code=None)
    return done.out.startswith("SSH-2.0")


def switches(place: LxcPlace, network: str) -> list[int]:
    folder = str(place.folder_of("a").parent.parent / "networks" / network)
    found = psutil.process_iter(["cmdline"])
    return [one.pid for one in found if (one.info["cmdline"] or [""])[-1:] == [folder]]


def test_they_find_each_other(place: LxcPlace) -> None:
    listed = inspect(place, "machines")
    assert set(listed) == {"a", "b"}
    assert all(one["connected"] for one in listed.values())
    assert answers(place, "a", "b")
    assert answers(place, "b", "a.machine.internal")


def test_another_network_is_out_of_reach(place: LxcPlace) -> None:
    (c,) = inspect(place, "lab").values()
    assert not answers(place, "a", "c")
    assert not answers(place, "a", str(c["address"]))
    assert "machines are on the network" in place.machine("network", "rm", "lab", code=2).err


def test_a_switch_that_was_killed_comes_again(place: LxcPlace) -> None:
    (switch,) = switches(place, "machines")
    os.kill(switch, signal.SIGKILL)
    until(lambda: switches(place, "machines") not in ([], [switch]), "the next switch", 60)
    until(lambda: answers(place, "a", "b"), "an answer of b", 60)


def test_after_suspend_and_restart(place: LxcPlace) -> None:
    place.machine("suspend", "b")
    place.machine("resume", "b")
    assert answers(place, "a", "b")
    place.machine("restart", "b")
    until(lambda: answers(place, "a", "b"), "an answer of b", 60)


def test_its_switch_ends_with_the_last_machine(place: LxcPlace) -> None:
    assert len(switches(place, "lab")) == 1
    place.machine("rm", "-y", "c")
    until(lambda: not switches(place, "lab"), "the end of the switch", 60)
    assert place.machine("network", "rm", "lab").out == "Removed the network lab\n"
    assert place.machine("network", "ls", "-q").out == "machines\n"

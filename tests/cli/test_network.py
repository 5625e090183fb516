"""machine network, with machines that exist in the store only."""

import json
from pathlib import Path

import pytest

from machine import paths, spec
from machine.driver import Driver
from machine.registry import load
from machine.spec import Address, Machine
from tests.fixture_types import Invoke


def record(name: str, last: int, network: str) -> None:
    machine = Machine(
        *(name, "fake", name, "52:54:00:00:00:01", "", 512, 1, 1024),
        address=Address(f"127.77.5.{last}"),
        network=network,
    )
    folder = paths.store() / "machines" / name
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text(spec.dumps(machine), encoding="utf-8")


def test_the_first_network_is_always_there(invoke: Invoke) -> None:
    assert invoke("network", "ls").lines == ["NETWORK    MACHINES   CONNECTED", "machines   0          0"]
    assert "is always there" in invoke("network", "rm", "machines").err
    assert "already exists" in invoke("network", "create", "machines").err


def test_a_network_and_its_machines(invoke: Invoke, vms: Path) -> None:
    assert invoke("network", "create", "lab").out == "Created the network lab\n"
    record("web", 2, "lab")
    record("db", 3, "lab")
    record("alone", 4, "")
    assert invoke("network", "ls", "-q").out == "machines\nlab\n"
    found = json.loads(invoke("network", "inspect", "lab").out)
    assert (found["name"], found["mtu"]) == ("lab", 32000)
    assert {one["name"]: (one["address"], one["names"], one["connected"]) for one in found["machines"]} == {
        "web": ("10.77.5.2", ["web", "web.machine.internal"], False),
        "db": ("10.77.5.3", ["db", "db.machine.internal"], False),
    }
    assert [one["name"] for one in json.loads(invoke("network", "ls", "--json").out)] == ["machines", "lab"]
    refused = invoke("network", "rm", "lab")
    assert refused.code == 2
    assert "Next: machine rm" in refused.err
    for name in ("web", "db"):
        (paths.store() / "machines" / name / "machine.json").unlink()
    assert invoke("network", "rm", "lab").out == "Removed the network lab\n"
    assert not (paths.store() / "networks" / "lab").exists()


@pytest.mark.parametrize("name", ["none", "a/b", "..", "-x", "a" * 64])
def test_names_that_cant_be(invoke: Invoke, name: str) -> None:
    ended = invoke("network", "create", "--", name)
    assert ended.code == 2
    assert "invalid name" in ended.err


@pytest.mark.parametrize("verb", ["inspect", "rm"])
def test_a_network_that_isnt_there(invoke: Invoke, verb: str) -> None:
    assert 'there is no network "lab"' in invoke("network", verb, "lab").err


def test_a_driver_without_networks(invoke: Invoke, vms: Path) -> None:
    ended = invoke("create", "--network", "machines", "dev")
    assert ended.code == 3
    assert "the driver fake has no networks between machines" in ended.err
    assert invoke("create", "--network", "none", "dev").code == 0
    assert json.loads(invoke("inspect", "dev").out)["Machine"]["network"] == ""


def test_a_network_is_asked_for_or_the_first_one(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake: type[Driver] = load("fake")
    monkeypatch.setattr(fake, "networks", True)
    assert invoke("create", "dev").code == 0
    ended = invoke("create", "--network", "lab", "other")
    assert ended.code == 3
    assert "Next: machine network create lab" in ended.err
    invoke("network", "create", "lab")
    assert invoke("create", "--network", "lab", "other").code == 0
    networks = [json.loads(invoke("inspect", name).out)["Machine"]["network"] for name in ("dev", "other")]
    assert networks == ["machines", "lab"]

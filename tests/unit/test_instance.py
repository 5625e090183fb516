"""A machine in the store, and what is made for it."""

from __future__ import annotations

import threading
from pathlib import Path

import machine_fake
import pytest

from machine import instance, store
from machine.driver import State
from machine.errors import DriverFailed, MachineError, MachineExists, NoSuchMachine, NotRunning, WaitTimeout
from machine.instance import Instance
from machine.spec import Address, Machine
from tests.fixture_types import Add


def failing(*_: object) -> Address:
    raise DriverFailed("the hypervisor doesn't know")


def test_the_driver_is_made_once_and_when_it_is_needed(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add("dev", state="Running")
    dev = instance.load("dev")
    monkeypatch.setattr(Instance, "driver", None)
    assert (dev.name, dev.address, dev.url) == ("dev", made.address, "tcp://127.77.0.2:2375")
    client, shell = dev.docker(3), dev.shell()
    assert (client.machine, client.folder, client.address, client.timeout) == (made, dev.folder, made.address, 3)
    assert (shell.folder, shell.address, shell.user) == (dev.folder, made.address, "docker")


def test_a_driver_stays(add: Add) -> None:
    add("dev")
    dev = instance.load("dev")
    assert dev.driver is dev.driver
    assert (dev.driver.machine, dev.driver.folder) == (dev.machine, dev.folder)


def test_an_address_that_only_the_driver_knows(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("dev", address=None)
    dev = instance.load("dev")
    monkeypatch.setattr(machine_fake.Fake, "address", failing)
    assert dev.url == ""
    with pytest.raises(DriverFailed, match="doesn't know"):
        dev.docker()
    monkeypatch.setattr(machine_fake.Fake, "address", lambda _: Address("192.0.2.7"))
    assert dev.url == "tcp://192.0.2.7:2375"


def test_one_that_runs(add: Add) -> None:
    add("dev", state="Running")
    add("off")
    assert instance.running("dev").name == "dev"
    with pytest.raises(NotRunning):
        instance.running("off")
    with pytest.raises(NoSuchMachine):
        instance.running("absent")


def test_a_hypervisor_that_doesnt_answer(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("dev", state="Running")
    answers = threading.Event()
    monkeypatch.setattr(machine_fake.Fake, "state", lambda _: answers.wait(300) and State.RUNNING)
    assert instance.load("dev").state(timeout=0.1) is None
    with pytest.raises(WaitTimeout):
        instance.running("dev", timeout=0.1)
    answers.set()
    monkeypatch.setattr(machine_fake.Fake, "state", failing)
    with pytest.raises(DriverFailed):
        instance.load("dev").state(timeout=60)


def test_a_machine_keeps_its_driver_when_it_gets_an_address(store: Path) -> None:
    wanted = drafted("dev")
    placed = wanted.at(Address("127.77.0.9"))
    assert placed.driver is wanted.driver
    assert placed.driver.machine == placed.machine
    assert (placed.address.host, wanted.machine.address) == ("127.77.0.9", None)


def drafted(name: str) -> Instance:
    return Instance(Machine(name, "fake", "", "", "", 512, 1, 1024), store.folder_of(name))


def test_a_reserved_name(add: Add) -> None:
    add("other")
    seen: list[str] = []

    def place(wanted: Instance, others: list[Machine]) -> Instance:
        seen.extend(other.name for other in others)
        return wanted.at(Address("127.77.0.9"))

    with instance.reserve(drafted("dev"), place, lambda _: None, seen.append) as made:
        assert not store.exists("dev")
    assert seen == ["other"]
    assert store.load("dev") == made.machine
    assert made.address.host == "127.77.0.9"
    with pytest.raises(MachineExists), instance.reserve(drafted("dev"), place, lambda _: None, seen.append):
        pass


def test_what_fails_is_undone(store: Path) -> None:
    undone: list[Instance] = []
    with (
        pytest.raises(MachineError, match="broke"),
        instance.reserve(drafted("dev"), lambda wanted, _: wanted, undone.append, lambda _: None),
    ):
        raise MachineError("it broke")
    assert [one.name for one in undone] == ["dev"]
    assert not (store / "machines" / "dev").exists()


def test_a_machine_is_held_while_it_changes(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add("dev")
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with instance.changing("dev") as dev:
        assert dev.machine == made
        with pytest.raises(MachineError, match="another command is using"), instance.changing("dev"):
            pass

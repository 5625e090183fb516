import json
import socket
from collections.abc import Iterator

import pytest
from fake_vboxmanage import UUID, Scripted, info
from machine.drivers.virtualbox import VirtualBox, ports
from machine.drivers.virtualbox.ports import Forwards
from machine.drivers.virtualbox.vboxmanage import VBoxManage

from machine import docker
from machine.errors import DockerFailed
from machine.ports import TAKEN, follow, published
from machine.run import Completed

HOST = "127.77.1.2"
OURS = 'Forwarding(0)="docker,tcp,127.77.1.2,2375,,2375"'
RUNNING = info("running", OURS, 'Forwarding(1)="tcp-8080,tcp,127.77.1.2,8080,,8080"')


@pytest.fixture
def forwards(call: VBoxManage, monkeypatch: pytest.MonkeyPatch) -> Forwards:
    monkeypatch.setattr(ports, "is_free", lambda protocol, host, port: port != 99)
    return Forwards(call, UUID, HOST, {("tcp", 2375), ("tcp", 22)})


def test_rules_come_and_go_with_what_is_published(forwards: Forwards, run: Scripted) -> None:
    run.answer("showvminfo", RUNNING)
    forwards.bring_in_line({("tcp", 80), ("udp", 53), ("tcp", 2375), ("tcp", 99)})
    assert run.said("controlvm") == [
        ["controlvm", UUID, "natpf1", "delete", "tcp-8080"],
        ["controlvm", UUID, "natpf1", "tcp-80,tcp,127.77.1.2,80,,80"],
        ["controlvm", UUID, "natpf1", "udp-53,udp,127.77.1.2,53,,53"],
    ]
    assert forwards.taken == {("tcp", 99)}


def test_what_is_right_is_left_alone(forwards: Forwards, run: Scripted) -> None:
    run.answer("showvminfo", RUNNING)
    forwards.bring_in_line({("tcp", 8080)})
    assert not run.said("controlvm")


def test_a_port_that_becomes_free(forwards: Forwards, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    run.answer("showvminfo", info("running"))
    forwards.bring_in_line({("tcp", 99)})
    monkeypatch.setattr(ports, "is_free", lambda *_: True)
    forwards.bring_in_line({("tcp", 99)})
    assert forwards.taken == set()
    assert run.said("controlvm") == [["controlvm", UUID, "natpf1", "tcp-99,tcp,127.77.1.2,99,,99"]]


def test_what_containers_publish() -> None:
    containers = [
        {"Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]},
        {"Ports": [{"IP": "127.0.0.1", "PrivatePort": 81, "PublicPort": 81, "Type": "tcp"}]},
        {"Ports": [{"PrivatePort": 443, "Type": "tcp"}, {"IP": "::", "PublicPort": 53, "Type": "udp"}]},
        {"Ports": None},
    ]
    assert published(containers) == {("tcp", 8080), ("udp", 53)}


def test_free_and_taken() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert not ports.is_free("tcp", "127.0.0.1", port)
        assert ports.is_free("tcp", "127.0.0.9", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert not ports.is_free("udp", "127.0.0.1", bound.getsockname()[1])


class Engine:
    """Two events, and then it goes away."""

    def container_events(self) -> Iterator[None]:
        yield
        yield
        raise DockerFailed("gone")

    def get(self, path: str) -> object:
        return [{"Ports": [{"IP": "0.0.0.0", "PublicPort": 99, "Type": "tcp"}]}]


def test_taken_ports_are_shown_by_status(make: object, forwards: Forwards, run: Scripted) -> None:
    driver = make()  # type: ignore[operator]
    assert isinstance(driver, VirtualBox)
    (driver.home / ports.PIDFILE).write_text(str(ports.os.getpid()))
    run.answer("showvminfo", info("running"))
    with pytest.raises(DockerFailed):
        follow(driver.home, forwards, Engine())  # type: ignore[arg-type]
    assert json.loads((driver.home / TAKEN).read_text()) == ["99/tcp"]
    assert driver.warnings() == ["port 99/tcp is published, but taken on 127.77.1.2 by another program of this host"]


def test_a_newer_helper_has_taken_over(make: object, forwards: Forwards, run: Scripted) -> None:
    driver = make()  # type: ignore[operator]
    (driver.home / ports.PIDFILE).write_text("1")
    newest = ports._is_the_newest
    follow(driver.home, forwards, Engine(), goes_on=lambda: newest(driver.home))  # type: ignore[arg-type]
    assert run.calls == []


def test_the_helper_ends_with_its_machine(make: object, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make()  # type: ignore[operator]
    monkeypatch.setattr(ports, "run", run)
    monkeypatch.setattr(ports, "SHORTEST", 0.01)
    monkeypatch.setattr(ports.store, "read", lambda home: driver.machine)
    monkeypatch.setattr(docker, "Client", lambda *_: Engine())
    rules = info("running", OURS)
    run.answer("showvminfo", rules, rules, rules, info("paused"), info("saved"))
    ports.main(str(driver.home.folder))
    assert run.said("showvminfo")
    assert (driver.home / ports.PIDFILE).exists()


def test_the_helper_ends_when_the_machine_was_removed(make: object, run: Scripted) -> None:
    driver = make()  # type: ignore[operator]
    assert not ports._is_the_newest(driver.home)
    run.answer("showvminfo", Completed([], 0, "", ""))

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from machine.docker import ports
from machine.docker.ports import Port, bring_in_line, plan, published, why_not
from machine.paths import MachineFolder
from machine.spec import Address

ADDRESS = Address("127.77.0.2", 2375, 2222)


def container(*published: dict[str, Any], network: str = "bridge") -> dict[str, Any]:
    return {"Id": "ab12", "Names": ["/web"], "Ports": [*published], "HostConfig": {"NetworkMode": network}}


def port(public: int, ip: str = "0.0.0.0", type: str = "tcp") -> dict[str, Any]:
    return {"IP": ip, "PrivatePort": 80, "PublicPort": public, "Type": type}


class Hypervisor:
    """Forwards what isn't busy, and remembers what it was told."""

    guest = "10.0.2.15"
    protocols = frozenset({"tcp", "udp"})

    def __init__(self, *busy: Port, name: str = "") -> None:
        self.busy = set(busy)
        self.forwarded: set[Port] = set()
        self.told: list[tuple[str, str, int]] = []

    def current(self) -> set[Port]:
        return set(self.forwarded)

    def add(self, protocol: str, port: int) -> str:
        self.told.append(("add", protocol, port))
        if (protocol, port) in self.busy:
            return "busy"
        self.forwarded.add((protocol, port))
        return ""

    def drop(self, protocol: str, port: int) -> None:
        self.told.append(("drop", protocol, port))
        self.forwarded.discard((protocol, port))


def test_what_containers_publish_and_where() -> None:
    containers = [
        container(port(8080), port(8080, "::"), port(53, type="udp"), port(53)),
        container(port(8100, "127.0.0.1"), {"PrivatePort": 6379, "Type": "tcp"}),
        container(port(8100, "127.0.0.2")),
        {"Id": "no ports"},
        {"Id": "null", "Ports": None},
    ]
    assert published(containers) == {
        ("tcp", 8080): {"0.0.0.0", "::"},
        ("udp", 53): {"0.0.0.0"},
        ("tcp", 53): {"0.0.0.0"},
        ("tcp", 8100): {"127.0.0.1", "127.0.0.2"},
    }
    assert published([]) == {}


def test_which_containers_have_the_guests_network() -> None:
    assert ports.uses_host_network([container(), container(network="host")])
    assert not ports.uses_host_network([container(), {"Id": "old"}, {"HostConfig": None}])


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("::", "::1"),
        ("172.17.0.1", "172.17.0.1"),
        ("192.168.56.30", "192.168.56.30"),
    ],
)
def test_what_only_the_guest_reaches_goes_through_ssh(address: str, target: str) -> None:
    made = plan({("tcp", 8100): frozenset({address})}, ports.own(ADDRESS), Hypervisor())
    assert made == ports.Plan(set(), {("tcp", 8100): target}, {})


@pytest.mark.parametrize("address", ["", "0.0.0.0", "10.0.2.15"])
def test_what_is_open_to_the_hypervisor_is_forwarded_by_it(address: str) -> None:
    bound = {("tcp", 80): frozenset({address, "::"}), ("udp", 53): frozenset({address})}
    assert plan(bound, ports.own(ADDRESS), Hypervisor()) == ports.Plan({("tcp", 80), ("udp", 53)}, {}, {})


def test_without_forwards_of_the_hypervisor_all_of_tcp_goes_through_ssh() -> None:
    bound = {("tcp", 80): frozenset({"0.0.0.0"}), ("udp", 53): frozenset({"0.0.0.0"})}
    made = plan(bound, {}, ports.NoForwards())
    assert made.over_ssh == {("tcp", 80): "127.0.0.1"}
    assert made.failed == {("udp", 53): "UDP can't be forwarded to this machine"}


def test_what_cant_be_forwarded_has_a_reason() -> None:
    bound: dict[Port, frozenset[str]] = {
        ("tcp", 2222): frozenset({"0.0.0.0"}),
        ("udp", 8104): frozenset({"127.0.0.1"}),
        ("sctp", 7000): frozenset({"0.0.0.0"}),
    }
    made = plan(bound, ports.own(ADDRESS), Hypervisor())
    assert (made.direct, made.over_ssh) == (set(), {})
    assert ports.sentences(made.failed) == [
        "port 7000/sctp isn't forwarded: SCTP can't be forwarded to this machine",
        "port 2222/tcp isn't forwarded: it is the machine's own port for SSH",
        "port 8104/udp isn't forwarded: UDP is forwarded only when it is published on 0.0.0.0",
    ]


def test_a_port_that_changes_its_way_is_dropped_before_it_is_added() -> None:
    order: list[str] = []

    class Way(Hypervisor):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def add(self, protocol: str, port: int) -> str:
            order.append(f"add {self.name}")
            return super().add(protocol, port)

        def drop(self, protocol: str, port: int) -> None:
            order.append(f"drop {self.name}")
            super().drop(protocol, port)

    one, two = Way("one"), Way("two")
    two.forwarded = {("tcp", 80)}
    assert bring_in_line([(one, {("tcp", 80)}), (two, set())]) == {}
    assert order == ["drop two", "add one"]


def test_only_what_differs_is_told_to_the_hypervisor() -> None:
    way = Hypervisor(("tcp", 99))
    way.forwarded = {("tcp", 1), ("tcp", 2)}
    assert bring_in_line([(way, {("tcp", 2), ("tcp", 99)})]) == {("tcp", 99): "busy"}
    assert way.told == [("drop", "tcp", 1), ("add", "tcp", 99)]


def test_why_a_port_cant_be_opened() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        number = listening.getsockname()[1]
        assert why_not("tcp", "127.0.0.1", number) == "another program of this host uses it on 127.0.0.1"
        assert why_not("tcp", "127.0.0.9", number) == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        assert "another program" in why_not("udp", "127.0.0.1", bound.getsockname()[1])
    assert "can't be opened on 192.0.2.1: Cannot assign" in why_not("tcp", "192.0.2.1", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such ports")
def test_a_port_that_needs_root() -> None:
    assert ports.explain(PermissionError(13, "Permission denied"), "127.0.0.1", 80) == "ports below 1024 need root here"


@pytest.mark.parametrize(
    ("platform", "hint"),
    [("linux", "sudo sysctl net.ipv4.ip_unprivileged_port_start=22"), ("darwin", "choose a port above 1024")],
)
def test_the_hint_for_a_port_that_needs_root(platform: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ports, "why_not", lambda *_: "ports below 1024 need root here")
    refused = ports.refused(Address("127.0.0.1"), "Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'")
    assert refused.hint == hint


def test_the_note_for_status(tmp_path: Path) -> None:
    folder = MachineFolder(tmp_path)
    assert ports.warnings(folder) == []
    ports.note(folder, ["port 80/tcp isn't forwarded: it rains"])
    assert ports.warnings(folder) == ["port 80/tcp isn't forwarded: it rains"]
    (folder / ports.NOTE).write_text(json.dumps(["8080/tcp"]))
    assert ports.warnings(folder) == ["port 8080/tcp isn't forwarded: another program of this host uses it"]


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "\0"])
def test_a_note_that_cant_be_read_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ports.NOTE).write_text(text)
    assert ports.warnings(MachineFolder(tmp_path)) == []


def test_a_machine_that_cant_start_because_of_a_port_says_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ports.blocked(Address("127.0.0.1", 0, 0)) is None
    said = "qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'"
    monkeypatch.setattr(ports, "why_not", lambda *_: "")
    error = ports.refused(Address("127.0.0.1", 2375, 22), said)
    assert error.message == ("port 22, for SSH, can't be opened: the user that runs QEMU may not open it on 127.0.0.1")
    assert error.details == said
    assert "ip_unprivileged_port_start=22" in error.hint
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        taken = listening.getsockname()[1]
        monkeypatch.undo()
        for clash in (
            ports.refused(Address("127.0.0.1", 1, taken), f"rule 'tcp:127.0.0.1:{taken}-:22'"),
            ports.refused(Address("127.0.0.1", 0, taken), "Address already in use"),
            ports.blocked(Address("127.0.0.1", 0, taken)),
        ):
            assert clash
            assert clash.message == (
                f"port {taken}, for SSH, can't be opened: another program of this host uses it on 127.0.0.1"
            )
            assert str(taken) in clash.hint


def test_what_is_published_inside_of_a_machine_with_an_address_on_a_network() -> None:
    bound = {
        ("tcp", 8100): frozenset({"127.0.0.1", "::1"}),
        ("tcp", 80): frozenset({"0.0.0.0"}),
        ("tcp", 81): frozenset({"127.0.0.1", "192.168.122.9"}),
    }
    assert ports.only_inside(bound) == ["port 8100/tcp is published inside of the machine only, on 127.0.0.1, ::1"]


def test_passt_names_its_port_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "why_not", lambda *_: "")
    said = "Failed to bind port 22 (Permission denied) for option '-t 127.77.0.2/22:22', exiting"
    assert "port 22, for SSH" in ports.refused(Address("127.77.0.2"), said).message

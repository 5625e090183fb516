"""The switch before real sockets, on which nobody but the test listens."""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import run, spec
from machine.network import addresses, packets, port, process, switch
from machine.network.process import NetworkFolder
from machine.spec import Address, Machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="networks between machines need Linux")
PATIENCE = 60.0
MACHINE = Machine(*("", "qemu", "u", "52:54:00:00:00:00", "", 512, 1, 1024), network="lab")
ALL = b"\xff" * 6


def mac(number: int) -> bytes:
    return bytes((0x52, 0x54, 0x4D, 0, 0, number))


def frame(target: bytes, source: bytes, data: bytes = b"data", kind: bytes = b"\x88\xb5") -> bytes:
    return target + source + kind + data


class Guest:
    """What a hypervisor is to the switch: a socket that it listens on. number: the last part of its address."""

    def __init__(self, store: Path, name: str, number: int, network: str = "lab") -> None:
        self.folder = store / "machines" / name
        self.folder.mkdir(parents=True)
        machine = dataclasses.replace(MACHINE, name=name, address=Address(f"127.77.5.{number}"), network=network)
        (self.folder / "machine.json").write_text(spec.dumps(machine), encoding="utf-8")
        self.mac = mac(number)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A path relative to the folder: that of a test may be too long.
        place = os.open(self.folder, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{place}/{addresses.SOCKET}")
        os.close(place)
        self.listener.listen()
        self.connection: socket.socket | None = None

    def accept(self) -> None:
        if self.connection:
            self.connection.close()
        self.listener.settimeout(PATIENCE)
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(PATIENCE)

    def send(self, *frames: bytes) -> None:
        assert self.connection
        self.connection.sendall(b"".join(struct.pack("!I", len(one)) + one for one in frames))

    def receive(self) -> bytes:
        return self._exactly(*struct.unpack("!I", self._exactly(4)))

    def _exactly(self, size: int) -> bytes:
        assert self.connection
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            assert more, "the switch closed the connection"
            data += more
        return data

    def nothing_waits(self) -> bool:
        assert self.connection
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.connection.settimeout(PATIENCE)

    def close(self) -> None:
        self.listener.close()
        if self.connection:
            self.connection.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "networks" / "lab").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def lab(store: Path) -> Iterator[switch.Switch]:
    made = switch.Switch(NetworkFolder(store / "networks" / "lab"))
    yield made
    made.close()


@pytest.fixture
def guest(store: Path) -> Iterator[Callable[..., Guest]]:
    made: list[Guest] = []

    def make(name: str, number: int, network: str = "lab") -> Guest:
        made.append(Guest(store, name, number, network))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def three(lab: switch.Switch, guest: Callable[..., Guest]) -> list[Guest]:
    guests = [guest(name, number) for number, name in enumerate(("one", "two", "three"), 2)]
    lab.look()
    for one in guests:
        one.accept()
    return guests


def carry(lab: switch.Switch) -> None:
    """Carry what was sent: all of it is in the sockets already."""
    lab.carry(PATIENCE)


def test_it_learns_where_a_machine_is(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, three_ = three
    one.send(sent := frame(two.mac, one.mac))
    carry(lab)
    assert two.receive() == three_.receive() == sent, "nobody is known yet, so all get it"
    two.send(sent := frame(one.mac, two.mac))
    carry(lab)
    assert one.receive() == sent
    assert three_.nothing_waits()
    one.send(frame(two.mac, one.mac, b"again"))
    carry(lab)
    assert two.receive() == frame(two.mac, one.mac, b"again")
    assert three_.nothing_waits()
    assert one.nothing_waits()


def test_what_is_for_all_goes_to_all_others(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, three_ = three
    one.send(sent := frame(ALL, one.mac))
    carry(lab)
    assert two.receive() == three_.receive() == sent
    assert one.nothing_waits()


def test_a_frame_that_comes_in_parts(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, _ = three
    whole = frame(ALL, one.mac, b"x" * 60000)
    raw = struct.pack("!I", len(whole)) + whole
    assert one.connection
    for part in (raw[:2], raw[2:9], raw[9:]):
        one.connection.sendall(part)
        carry(lab)
    assert two.receive() == whole


def test_many_frames_in_one_read_keep_their_order(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, _ = three
    sent = [frame(ALL, one.mac, bytes([number])) for number in range(100)]
    one.send(*sent)
    carry(lab)
    assert [two.receive() for _ in sent] == sent


@pytest.mark.parametrize("size", [0, 13, port.LARGEST + 1, 0xFFFFFFFF])
def test_who_sends_no_frames_is_parted_with(lab: switch.Switch, three: list[Guest], size: int) -> None:
    one, _, _ = three
    assert one.connection
    one.connection.sendall(struct.pack("!I", size))
    carry(lab)
    assert one.connection.recv(1) == b""
    assert sorted(lab.ports) == ["three", "two"]


def test_who_goes_can_come_again(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, _ = three
    one.send(frame(ALL, one.mac))
    carry(lab)
    assert one.connection
    one.connection.close()
    carry(lab)
    assert "one" not in lab.ports
    lab.look()
    one.accept()
    two.receive()
    two.send(sent := frame(one.mac, two.mac))
    carry(lab)
    assert one.receive() == sent


def test_a_guest_that_doesnt_read_delays_no_other(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, three_ = three
    lost = frame(three_.mac, one.mac, b"x" * 60000)
    three_.send(frame(ALL, three_.mac))
    carry(lab)
    assert one.receive()
    assert two.receive()
    for _ in range(60):
        one.send(lost)
        carry(lab)
    one.send(sent := frame(ALL, one.mac, b"for all"))
    carry(lab)
    assert two.receive() == sent
    assert three_.receive() == lost, "what it gets are whole frames"
    assert len(lab.ports["three"]._waiting) < port.QUEUE + port.READ


def test_one_machine_cant_flood_the_others(
    lab: switch.Switch, three: list[Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three_ = three
    monkeypatch.setattr(time, "monotonic", lambda: lab.ports["one"]._counted)
    one.send(*[frame(ALL, one.mac, b"") for _ in range(int(port.FLOODS) + 500)])
    carry(lab)
    three_.send(last := frame(ALL, three_.mac, b"the last"))
    carry(lab)
    got = 0
    while two.receive() != last:
        got += 1
    assert got == port.FLOODS


def test_learned_addresses_are_bounded(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, _ = three
    for high in range(4):
        one.send(*[frame(two.mac, bytes((2, 0, 0, 0, high, low))) for low in range(100)])
        carry(lab)
    assert lab.ports["one"].addresses == switch.ADDRESSES == len(lab._learned)


def test_nobody_passes_for_all_or_for_the_switch(lab: switch.Switch, three: list[Guest]) -> None:
    one, two, _ = three
    one.send(frame(two.mac, ALL), frame(two.mac, packets.MAC))
    carry(lab)
    assert two.nothing_waits()
    assert not lab._learned


def test_it_answers_for_names(lab: switch.Switch, three: list[Guest], guest: Callable[..., Guest]) -> None:
    one, two, _ = three
    guest("elsewhere", 9, network="other")
    assert lab.find("two") == lab.find("TWO") == lab.find("two.machine.internal") == "10.77.5.3"
    assert lab.find("elsewhere") is lab.find("nobody") is lab.find("two.example.test") is lab.find("../two") is None
    server, own = socket.inet_aton("10.77.5.1"), socket.inet_aton("10.77.5.2")
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + one.mac + own + b"\0" * 6 + server
    one.send(frame(ALL, one.mac, request, b"\x08\x06"))
    carry(lab)
    assert one.receive()[:12] == one.mac + packets.MAC
    assert two.nothing_waits()


def test_machines_of_other_networks_stay_outside(lab: switch.Switch, guest: Callable[..., Guest]) -> None:
    guest("mine", 2)
    guest("others", 3, network="other")
    guest("alone", 4, network="")
    lab.look()
    lab.look()
    assert list(lab.ports) == ["mine"]


def test_a_socket_of_another_user_is_left_alone(
    lab: switch.Switch, guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest("one", 2)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    lab.look()
    assert not lab.ports


def test_a_machine_that_is_off(lab: switch.Switch, guest: Callable[..., Guest]) -> None:
    guest("one", 2).close()
    lab.look()
    assert not lab.ports


def test_it_tells_who_is_connected(lab: switch.Switch, three: list[Guest]) -> None:
    assert (lab.folder.ports).read_text() == '["one", "three", "two"]\n'
    assert lab.folder.connected() == [], "no process runs"


def test_it_ends_soon_after_its_last_machine(
    lab: switch.Switch, three: list[Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "PATIENCE", 0.2)
    monkeypatch.setattr(switch, "LOOK", 0.05)
    for one in three:
        one.close()
    lab.run()
    assert not lab.ports


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The switches that were started; they end with the test."""
    found: list[subprocess.Popen[bytes]] = []

    def detach(*words: Any, **more: Any) -> None:
        found.append(run.detach(*words, **more))

    monkeypatch.setattr(process, "detach", detach)
    yield found
    for one in found:
        one.kill()
        one.wait(PATIENCE)


def test_the_process_is_started_once_and_again_when_it_was_killed(
    store: Path, guest: Callable[..., Guest], started: list[subprocess.Popen[bytes]]
) -> None:
    one = guest("one", 2)
    folder = process.folder_of(store, "lab")
    process.ensure(store, "lab")
    process.ensure(store, "lab")
    one.accept()
    assert folder.runs()
    _make_old(folder)
    process.ensure(store, "lab")
    (first,) = started
    first.kill()
    assert one.connection
    assert one.connection.recv(1) == b""
    _await(lambda: not folder.runs())
    process.ensure(store, "lab")
    one.accept()
    assert len(started) == 2
    _await(lambda: folder.connected() == ["one"])


def _make_old(folder: NetworkFolder) -> None:
    os.utime(folder.lock, (0, 0))


def _await(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.05)

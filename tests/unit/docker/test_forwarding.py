"""The loop of every driver's helper: it survives each failure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import spec, store
from machine.docker import api, forwarding, liveness, ports
from machine.docker.forwarding import Forwarding
from machine.docker.ports import Port
from machine.errors import DockerFailed, DriverFailed, SSHFailed
from machine.folders import watching
from machine.folders.trees import Tree
from machine.paths import MachineFolder
from machine.spec import Address, Machine

MACHINE = Machine("dev", "fake", "u", "m", "i", 512, 1, 1024, address=Address("127.77.0.2"))
WEB = [{"Ports": [{"IP": "0.0.0.0", "PublicPort": 8080, "Type": "tcp"}]}]
HOST = [{"HostConfig": {"NetworkMode": "host"}, "Ports": []}]
LISTENS = "sl local_address inode\n0: 00000000:1FA5 00000000:0000 0A\n"


class Hypervisor:
    """Runs for so many rounds. Each item of fails is raised once: by lives, by forwards, or when a port is added."""

    guest = "10.0.2.15"
    protocols = frozenset({"tcp", "udp"})

    def __init__(self) -> None:
        self.rounds = 1
        self.fails: dict[str, list[BaseException]] = {"lives": [], "forwards": [], "add": []}
        self.busy: set[Port] = set()
        self.forwarded: set[Port] = set()
        self.opened = 0
        self.asked = 0

    def lives(self) -> bool:
        self.rounds -= 1
        self._fail("lives")
        return self.rounds >= 0

    @contextlib.contextmanager
    def forwards(self, address: Address) -> Iterator[ports.Forwards]:
        self._fail("forwards")
        self.opened += 1
        yield self

    def current(self) -> set[Port]:
        self.asked += 1
        return set(self.forwarded)

    def add(self, protocol: str, port: int) -> str:
        self._fail("add")
        if (protocol, port) in self.busy:
            return "busy"
        self.forwarded.add((protocol, port))
        return ""

    def drop(self, protocol: str, port: int) -> None:
        self.forwarded.discard((protocol, port))

    def _fail(self, where: str) -> None:
        if self.fails[where]:
            raise self.fails[where].pop(0)


class Docker:
    """Follows a script: a list is what containers are after an event, None time that passes, an error is raised."""

    def __init__(self) -> None:
        self.script: list[list[dict[str, Any]] | BaseException | None] = []
        self.now: list[dict[str, Any]] = []
        self.patience: list[float] = []
        self.intervals: list[float] = []
        self.listed = 0
        self.engine = "28.5.1"

    def __call__(self, machine: Machine, folder: MachineFolder, address: Address, timeout: float) -> Docker:
        self.patience.append(timeout)
        return self

    def container_events(self, interval: Callable[[], float]) -> Iterator[bool]:
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, BaseException):
                raise step
            self.now = self.now if step is None else step
            yield step is not None
            self.intervals.append(interval())
        raise DockerFailed("the stream ended")

    def containers(self) -> list[dict[str, Any]]:
        self.listed += 1
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    folder = MachineFolder(tmp_path / "store" / "machines" / "dev")
    folder.path.mkdir(parents=True)
    folder.config.write_text(spec.dumps(MACHINE))
    return folder


@pytest.fixture
def hypervisor() -> Hypervisor:
    return Hypervisor()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Docker:
    engine = Docker()
    monkeypatch.setattr(api, "Client", engine)
    monkeypatch.setattr(forwarding, "SHORTEST", 0.0)
    monkeypatch.setattr(forwarding, "LONGEST", 0.0)
    return engine


def test_ports_come_and_go_with_containers(folder: MachineFolder, hypervisor: Hypervisor, engine: Docker) -> None:
    engine.script = [[], WEB]
    Forwarding(folder, hypervisor).run()
    assert hypervisor.forwarded == {("tcp", 8080)}
    hypervisor.rounds = 1
    engine.script = [WEB, []]
    Forwarding(folder, hypervisor).run()
    assert hypervisor.forwarded == set()


FAULTS = [
    DriverFailed("no answer on ports.sock within 10 s"),
    OSError(28, "No space left on device"),
    DockerFailed("refused"),
    KeyError("a fault of our own"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("where", ["lives", "forwards", "add", "docker"])
def test_it_goes_on_whatever_fails(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, where: str, fault: Exception
) -> None:
    hypervisor.rounds = 3
    if where == "docker":
        engine.script = [fault, WEB]
    else:
        hypervisor.fails[where].append(fault)
        engine.script = [WEB, WEB]
    Forwarding(folder, hypervisor).run()
    assert hypervisor.forwarded == {("tcp", 8080)}


def test_that_docker_answers_is_noted_as_long_as_it_does(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []
    lives = hypervisor.lives
    events = engine.container_events

    def watched(interval: Callable[[], float]) -> Iterator[bool]:
        for changed in events(interval):
            yield changed
            known.append(liveness.version(folder))

    monkeypatch.setattr(engine, "container_events", watched)
    monkeypatch.setattr(hypervisor, "lives", lambda: known.append(liveness.version(folder)) or lives())
    engine.script = [[], WEB]
    Forwarding(folder, hypervisor).run()
    # The last one: the stream has ended, and nobody knows whether Docker is still there.
    assert known == ["", "28.5.1", "28.5.1", ""]


def test_a_full_disk_costs_the_note_only(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [OSError(28, "No space left on device")]
    note = ports.note

    def write(folder: MachineFolder, warnings: list[str]) -> None:
        if full:
            raise full.pop()
        note(folder, warnings)

    monkeypatch.setattr(ports, "note", write)
    hypervisor.busy, hypervisor.rounds = {("tcp", 8080)}, 2
    engine.script = [WEB]
    first = Forwarding(folder, hypervisor)
    first.run()
    engine.script, hypervisor.rounds = [WEB], 1
    first.run()
    assert ports.warnings(folder) == ["port 8080/tcp isn't forwarded: busy"]


def test_it_ends_when_the_machine_was_removed(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor.rounds = 1000
    hypervisor.fails["lives"] = [DriverFailed("can't be asked")] * 1000
    loop = Forwarding(folder, hypervisor)

    def remove(interval: Callable[[], float]) -> Iterator[bool]:
        folder.path.rename(folder.path.with_name(".trash-dev"))
        raise DockerFailed("gone")

    monkeypatch.setattr(engine, "container_events", remove)
    loop.run()
    assert len(hypervisor.fails["lives"]) == 999


def test_a_taken_port_is_noted_and_tried_again_without_an_event(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor.busy = {("tcp", 8080)}
    noted: list[list[str]] = []
    engine.script = [WEB, None, None, None]
    events = engine.container_events

    def watched(interval: Callable[[], float]) -> Iterator[bool]:
        for changed in events(interval):
            yield changed
            noted.append(ports.warnings(folder))
            if len(noted) == 2:
                hypervisor.busy.clear()

    monkeypatch.setattr(engine, "container_events", watched)
    Forwarding(folder, hypervisor).run()
    assert noted == [["port 8080/tcp isn't forwarded: busy"]] * 2 + [[], []]
    assert engine.intervals == [forwarding.RETRY] * 2 + [forwarding.RELIST] * 2
    assert engine.listed == 1, "Docker isn't asked for that"


def test_where_nothing_changed_nobody_is_asked(folder: MachineFolder, hypervisor: Hypervisor, engine: Docker) -> None:
    engine.script = [WEB, None, None, None]
    Forwarding(folder, hypervisor).run()
    assert (engine.listed, hypervisor.asked) == (1, 1)


def test_containers_are_listed_now_and_then(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event may be lost, and a hypervisor may forget a forward (a snapshot was restored)."""
    monkeypatch.setattr(forwarding, "RELIST", 0.0)
    engine.script = [WEB, None]
    Forwarding(folder, hypervisor).run()
    assert (engine.listed, hypervisor.asked) == (2, 2)


def test_patience_grows_with_silence_and_ends_with_an_answer(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100000, 50))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    hypervisor.rounds = 4
    silence = DockerFailed("timed out")
    engine.script = [silence, silence, WEB, silence]
    Forwarding(folder, hypervisor).run()
    assert engine.patience == [10.0, 15.0, 22.5, 10.0]


class Reads:
    """The guest's files; an error is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.closed = 0

    def read(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed += 1


def test_ports_of_containers_with_the_guests_network(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Forwarding(folder, hypervisor)
    monkeypatch.setattr(loop, "reader", Reads("", LISTENS, SSHFailed("no SSH")))
    seen: list[set[Port]] = []
    engine.script = [HOST, None, None, []]
    events = engine.container_events

    def watched(interval: Callable[[], float]) -> Iterator[bool]:
        for changed in events(interval):
            yield changed
            seen.append(set(hypervisor.forwarded))

    monkeypatch.setattr(engine, "container_events", watched)
    loop.run()
    assert seen == [set(), {("tcp", 8101)}, {("tcp", 8101)}, set()]
    assert engine.intervals == [forwarding.LOOK] * 3 + [forwarding.RELIST]
    assert ports.warnings(folder) == []


def test_published_ports_are_forwarded_though_ssh_is_out_of_order(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Forwarding(folder, hypervisor)
    monkeypatch.setattr(loop, "reader", Reads(SSHFailed("no SSH connection")))
    engine.script = [HOST + WEB]
    loop.run()
    assert hypervisor.forwarded == {("tcp", 8080)}
    assert ports.warnings(folder) == ["new ports of containers with --network host aren't seen: no SSH connection"]


def test_ports_through_an_ssh_that_lets_nobody_in_are_told(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, unused: int
) -> None:
    engine.script = [[{"Ports": [{"IP": "127.0.0.1", "PublicPort": unused, "Type": "tcp"}]}], None]
    loop = Forwarding(folder, hypervisor)
    loop.relay.connection.trouble = "no SSH connection to 127.77.0.2:22"
    loop.run()
    assert ports.warnings(folder) == ["ports that lead through SSH don't answer: no SSH connection to 127.77.0.2:22"]


@pytest.fixture
def unused() -> int:
    """A port that the relay can open."""
    with socket.create_server(("127.77.0.2", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_guests_sockets_are_left_out_when_the_user_says_so(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Forwarding(folder, hypervisor)
    monkeypatch.setattr(loop, "reader", Reads(LISTENS))
    engine.script = [HOST, HOST]
    folder.config.write_text(spec.dumps(dataclasses.replace(store.read(folder), host_network_ports=False)))
    loop.run()
    assert hypervisor.forwarded == set()
    assert engine.intervals == [forwarding.RELIST] * 2


class Watching:
    """Stands for what watches folders: what it was asked to watch, and whether it was closed."""

    def __init__(self, folder: MachineFolder, connection: object, changed: Callable[[], None]) -> None:
        self.asked: list[frozenset[Tree]] = []
        self.warnings = ["a folder isn't watched"]
        self.closed = False

    def bring_in_line(self, wanted: frozenset[Tree]) -> None:
        self.asked.append(wanted)

    def close(self) -> None:
        self.closed = True


@pytest.mark.skipif(sys.platform != "linux", reason="folders are watched on Linux")
def test_folders_that_containers_bind_are_watched(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what it says of them is noted with what is said of ports."""
    made: list[Watching] = []
    monkeypatch.setattr(watching, "Watching", lambda *all_: made.append(Watching(*all_)) or made[-1])
    folder.config.write_text(spec.dumps(dataclasses.replace(MACHINE, mounts=(str(tmp_path),))))
    hypervisor.busy = {("tcp", 8080)}
    engine.script = [[], [{**WEB[0], "Mounts": [{"Type": "bind", "Source": str(tmp_path)}]}], []]
    Forwarding(folder, hypervisor).run()
    top = os.fsencode(tmp_path)
    assert made[0].asked == [frozenset(), {Tree(top, top, top)}, frozenset()]
    assert made[0].closed
    assert ports.warnings(folder) == ["a folder isn't watched"]


@pytest.mark.skipif(sys.platform != "linux", reason="folders are watched on Linux")
def test_a_machine_on_a_network_has_watchers_and_no_forwards(
    folder: MachineFolder, hypervisor: Hypervisor, engine: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Watching] = []
    monkeypatch.setattr(watching, "Watching", lambda *all_: made.append(Watching(*all_)) or made[-1])
    folder.config.write_text(spec.dumps(dataclasses.replace(MACHINE, mounts=(str(tmp_path),), address=None)))
    engine.script = [[{**WEB[0], "Mounts": [{"Type": "bind", "Source": str(tmp_path)}]}]]
    Forwarding(folder, hypervisor, address=Address("127.77.0.2"), has_forwards=False).run()
    top = os.fsencode(tmp_path)
    assert made[0].asked == [{Tree(top, top, top)}]
    assert hypervisor.forwarded == set()
    assert ports.warnings(folder) == ["a folder isn't watched"]


@pytest.mark.parametrize(("mounts", "watches"), [((), True), (("/srv",), False)])
def test_nothing_is_watched_where_nothing_is_shared_or_the_kernel_is_ours(
    folder: MachineFolder,
    hypervisor: Hypervisor,
    engine: Docker,
    monkeypatch: pytest.MonkeyPatch,
    mounts: tuple[str, ...],
    watches: bool,
) -> None:
    monkeypatch.setattr(watching, "Watching", lambda *all_: pytest.fail("nothing is to be watched"))
    folder.config.write_text(spec.dumps(dataclasses.replace(MACHINE, mounts=mounts)))
    engine.script = [[{**WEB[0], "Mounts": [{"Type": "bind", "Source": "/srv"}]}]]
    Forwarding(folder, hypervisor, watches=watches).run()
    assert hypervisor.forwarded == {("tcp", 8080)}

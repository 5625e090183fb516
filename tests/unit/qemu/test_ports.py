import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_qmp import monitor
from machine.drivers.qemu.argv import PIDFILE, PORTS_MONITOR
from machine.drivers.qemu.ports import Forwards
from machine.drivers.qemu.qmp import Qmp

from machine import spec
from machine.errors import DockerFailed
from machine.paths import Home
from machine.ports import TAKEN, follow, published, taken
from machine.spec import Address, Machine

RESERVED = {("tcp", 2375), ("tcp", 22)}


def container(*published: dict[str, Any]) -> dict[str, Any]:
    return {"Id": "ab12", "Names": ["/web"], "State": "running", "Ports": [*published]}


def port(public: int, *, type: str = "tcp", ip: str = "0.0.0.0") -> dict[str, Any]:
    return {"IP": ip, "PrivatePort": 80, "PublicPort": public, "Type": type}


def test_what_containers_publish() -> None:
    containers = [
        container(port(8080), port(8080, ip="::"), port(53, type="udp"), port(53, type="tcp")),
        container(port(9000, ip="10.0.2.15")),
        container({"PrivatePort": 6379, "Type": "tcp"}),
        container(port(7000, type="sctp")),
        container(port(5000, ip="127.0.0.1"), port(5001, ip="::1"), port(5002, ip="127.1.2.3")),
        {"Id": "no ports"},
        {"Id": "null", "Ports": None},
    ]
    assert published(containers) == {("tcp", 8080), ("udp", 53), ("tcp", 53), ("tcp", 9000)}
    assert published([]) == set()


class Slirp:
    """QEMU's user network: what it forwards, and the ports that another program has."""

    def __init__(self, *busy: str) -> None:
        self.busy = set(busy)
        self.forwards: set[str] = set()
        self.lines: list[str] = []

    def __call__(self, message: dict[str, Any]) -> str:
        line = message["arguments"]["command-line"]
        self.lines.append(line)
        verb, _, rule = line.split()
        if verb == "hostfwd_remove":
            self.forwards.remove(rule)
            return f"host forwarding rule for {rule} removed\r\n"
        outside = rule.partition("-")[0]
        if outside in self.busy:
            return f"could not set up host forwarding rule '{rule}'\r\n"
        self.forwards.add(outside)
        return ""


@pytest.fixture
def slirp() -> Slirp:
    return Slirp("tcp:127.77.0.2:9090")


@pytest.fixture
def forwards(tmp_path: Path, slirp: Slirp) -> Iterator[Forwards]:
    path = tmp_path / PORTS_MONITOR
    with monitor(path, {"human-monitor-command": slirp}), Qmp(path) as qmp:
        yield Forwards(qmp, "127.77.0.2", RESERVED)


def test_forwards_follow_what_is_wanted(forwards: Forwards, slirp: Slirp) -> None:
    forwards.bring_in_line({("tcp", 80), ("udp", 53)})
    assert slirp.lines == ["hostfwd_add net tcp:127.77.0.2:80-:80", "hostfwd_add net udp:127.77.0.2:53-:53"]
    slirp.lines.clear()
    forwards.bring_in_line({("udp", 53), ("tcp", 443)})
    assert slirp.lines == ["hostfwd_remove net tcp:127.77.0.2:80", "hostfwd_add net tcp:127.77.0.2:443-:443"]
    slirp.lines.clear()
    forwards.bring_in_line({("udp", 53), ("tcp", 443)})
    assert slirp.lines == []
    forwards.bring_in_line(set())
    assert slirp.forwards == set()
    assert forwards.taken == set()


def test_the_machines_own_ports_are_never_forwarded(forwards: Forwards, slirp: Slirp) -> None:
    forwards.bring_in_line({("tcp", 2375), ("tcp", 22), ("udp", 22)})
    assert slirp.forwards == {"udp:127.77.0.2:22"}


def test_a_taken_port_is_told_and_tried_again(forwards: Forwards, slirp: Slirp) -> None:
    wanted = {("tcp", 9090), ("tcp", 80)}
    forwards.bring_in_line(wanted)
    assert forwards.taken == {("tcp", 9090)}
    assert slirp.forwards == {"tcp:127.77.0.2:80"}
    slirp.busy.clear()
    forwards.bring_in_line(wanted)
    assert forwards.taken == set()
    assert slirp.forwards == {"tcp:127.77.0.2:80", "tcp:127.77.0.2:9090"}


def test_a_taken_port_is_forgotten_with_its_container(forwards: Forwards) -> None:
    forwards.bring_in_line({("tcp", 9090)})
    forwards.bring_in_line(set())
    assert forwards.taken == set()


class Containers:
    """Docker, as `follow` sees it: each event comes with the containers of that moment."""

    def __init__(self, *moments: list[dict[str, Any]]) -> None:
        self.moments = list(moments)

    def container_events(self) -> Iterator[None]:
        yield from [None] * len(self.moments)
        raise DockerFailed("the stream ended")

    def get(self, path: str) -> object:
        assert path == "/containers/json"
        return self.moments.pop(0)


def test_following_notes_what_is_taken(tmp_path: Path, forwards: Forwards, slirp: Slirp) -> None:
    home = Home(tmp_path)
    assert taken(home) == []
    seen = []

    class Watched(Containers):
        def get(self, path: str) -> object:
            seen.append(taken(home))
            return super().get(path)

    both = [container(port(9090), port(8080))]
    client = Watched([container(port(8080))], both, both, [])
    with pytest.raises(DockerFailed, match="the stream ended"):
        follow(home, forwards, client)  # type: ignore[arg-type]
    assert seen == [[], [], ["9090/tcp"], ["9090/tcp"]]
    assert taken(home) == []
    assert slirp.forwards == set()


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "\0"])
def test_a_note_that_cant_be_read_tells_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / TAKEN).write_text(text)
    assert taken(Home(tmp_path)) == []


@pytest.fixture
def engine() -> Iterator[ThreadingHTTPServer]:
    """A Docker engine on plain HTTP with one container, whose event stream ends when the server does."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            if self.path.startswith("/events"):
                self.wfile.flush()
                over.wait(timeout=30)
            else:
                self.wfile.write(json.dumps([container(port(8080))]).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    over.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_the_helper_lives_as_long_as_qemu(tmp_path: Path, engine: ThreadingHTTPServer, slirp: Slirp) -> None:
    home = Home(tmp_path)
    address = Address("127.0.0.1", engine.server_address[1])
    machine = Machine("dev", "qemu", "u", "m", "i", 512, 1, 1024, tls=False, address=address)
    home.creating.write_text(spec.dumps(machine))
    qemu = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-pidfile", home / PIDFILE])
    with monitor(home / PORTS_MONITOR, {"human-monitor-command": slirp}), qemu:
        helper = subprocess.Popen([sys.executable, "-m", "machine.drivers.qemu", home.folder])
        try:
            (home / PIDFILE).write_text(str(qemu.pid))
            await_(lambda: slirp.forwards == {"tcp:127.0.0.1:8080"})
            await_((home / TAKEN).exists)
            assert helper.poll() is None
            qemu.kill()
            assert helper.wait(timeout=20) == 0
        finally:
            qemu.kill()
            helper.kill()
            helper.wait(timeout=10)


def await_(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.02)

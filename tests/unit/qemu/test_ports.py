import contextlib
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
from fake_qmp import HANG_UP, monitor
from machine.drivers.qemu.argv import PIDFILE, PORTS_MONITOR
from machine.drivers.qemu.qmp import Qmp

from machine import spec
from machine.docker import ports
from machine.docker.ports import bring_in_line
from machine.helper import LOCK
from machine.paths import MachineFolder
from machine.spec import Address, Machine
from machine.usernet import Slirp

ADDRESS = Address("127.77.0.2")
WEB = [{"Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]}]


class UserNetwork:
    """QEMU's user network: what it forwards, as "tcp:127.77.0.2:80", and the ports that another program has."""

    def __init__(self, *busy: str) -> None:
        self.busy = set(busy)
        self.forwards: set[str] = set()
        self.lines: list[str] = []

    def __call__(self, message: dict[str, Any]) -> Any:
        line = message["arguments"]["command-line"]
        if line == "info usernet":
            return self.table()
        self.lines.append(line)
        verb, _, rule = line.split()
        if verb == "hostfwd_remove":
            self.forwards.remove(rule)
            return f"host forwarding rule for {rule} removed\r\n"
        outside = rule.partition("-")[0]
        if outside in self.busy or outside in self.forwards:
            return f"could not set up host forwarding rule '{rule}'\r\n"
        self.forwards.add(outside)
        return ""

    def table(self) -> str:
        """As QEMU 7.2 prints it."""
        rows = ["Hub -1 (net):", "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ"]
        rows += ["  TCP[ESTABLISHED]  105    127.77.0.2  2375       10.0.2.15  2375     0     0"]
        for forward in {"tcp:127.77.0.2:2375", "tcp:127.77.0.2:22", *self.forwards}:
            protocol, host, port = forward.split(":")
            rows.append(f"  {protocol.upper()}[HOST_FORWARD]  19    {host}  {port}       10.0.2.15  {port}     0     0")
        return "\r\n".join(rows) + "\r\n"


@pytest.fixture
def usernet() -> UserNetwork:
    return UserNetwork("tcp:127.77.0.2:9090")


@pytest.fixture
def slirp(tmp_path: Path, usernet: UserNetwork) -> Iterator[Slirp]:
    path = tmp_path / PORTS_MONITOR
    with monitor(path, {"human-monitor-command": usernet}), Qmp(path) as qmp:
        yield Slirp(qmp.human, "net", ADDRESS)


def test_forwards_follow_what_is_wanted(slirp: Slirp, usernet: UserNetwork) -> None:
    assert bring_in_line([(slirp, {("tcp", 80), ("udp", 53)})]) == {}
    assert usernet.lines == ["hostfwd_add net tcp:127.77.0.2:80-:80", "hostfwd_add net udp:127.77.0.2:53-:53"]
    usernet.lines.clear()
    bring_in_line([(slirp, {("udp", 53), ("tcp", 443)})])
    assert usernet.lines == ["hostfwd_remove net tcp:127.77.0.2:80", "hostfwd_add net tcp:127.77.0.2:443-:443"]
    usernet.lines.clear()
    bring_in_line([(slirp, {("udp", 53), ("tcp", 443)})])
    assert usernet.lines == []
    bring_in_line([(slirp, set())])
    assert usernet.forwards == set()


def test_what_an_earlier_helper_forwarded_is_known(slirp: Slirp, usernet: UserNetwork) -> None:
    """Another one's forward would look like a port that is taken, and one too many would stay."""
    usernet.forwards = {"tcp:127.77.0.2:80", "udp:127.77.0.2:53", "tcp:127.0.0.1:7000"}
    assert slirp.current() == {("tcp", 80), ("udp", 53)}
    assert bring_in_line([(slirp, {("tcp", 80)})]) == {}
    assert usernet.forwards == {"tcp:127.77.0.2:80", "tcp:127.0.0.1:7000"}


def test_why_a_port_isnt_forwarded(slirp: Slirp, usernet: UserNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = bring_in_line([(slirp, {("tcp", 9090), ("tcp", 80)})])
    assert failed == {("tcp", 9090): "QEMU says: could not set up host forwarding rule 'tcp:127.77.0.2:9090-:9090'"}
    assert usernet.forwards == {"tcp:127.77.0.2:80"}
    monkeypatch.setattr(ports, "why_not", lambda protocol, host, port: f"{protocol} {host} {port}")
    assert slirp.add("tcp", 9090) == "tcp 127.77.0.2 9090"


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
                over.wait(timeout=300)
            else:
                self.wfile.write(json.dumps(WEB).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    over.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=60)


@pytest.fixture
def folder(tmp_path: Path, engine: ThreadingHTTPServer) -> MachineFolder:
    """Of a machine whose Docker is the engine above."""
    address = Address("127.0.0.1", engine.server_address[1])
    machine = Machine("dev", "qemu", "u", "m", "i", 512, 1, 1024, tls=False, address=address)
    folder = MachineFolder(tmp_path)
    folder.creating.write_text(spec.dumps(machine))
    return folder


@contextlib.contextmanager
def running(folder: MachineFolder) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], subprocess.Popen[bytes]]]]:
    """A process in QEMU's place, and what starts a helper of it."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen([sys.executable, "-m", "machine.drivers.qemu", folder.path]))
        return begun[-1]

    argv = [sys.executable, "-c", "import time; time.sleep(600)", "-pidfile", folder / PIDFILE]
    with subprocess.Popen(argv) as qemu:
        try:
            (folder / PIDFILE).write_text(str(qemu.pid))
            yield qemu, begin
        finally:
            qemu.kill()
            for helper in begun:
                helper.kill()
                helper.wait(timeout=60)


FORWARDED = {"tcp:127.0.0.1:8080"}


def test_the_helper_lives_as_long_as_qemu(folder: MachineFolder, usernet: UserNetwork) -> None:
    with monitor(folder / PORTS_MONITOR, {"human-monitor-command": usernet}), running(folder) as (qemu, begin):
        helper = begin()
        await_(lambda: usernet.forwards == FORWARDED)
        assert helper.poll() is None
        qemu.kill()
        assert helper.wait(timeout=120) == 0


def test_it_ends_when_the_create_is_rolled_back_before_qemu_is_there(folder: MachineFolder) -> None:
    process = subprocess.Popen([sys.executable, "-m", "machine.drivers.qemu", folder.path])
    try:
        await_(lambda: (folder / LOCK).exists())
        folder.path.rename(folder.path.with_name("trash"))
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()


def test_a_monitor_that_hangs_up_is_opened_again(folder: MachineFolder, usernet: UserNetwork) -> None:
    """As after a silence: whatever broke, the next round begins with another connection."""
    faults: list[object] = [HANG_UP, b"garbage\n"]

    def now_and_then(message: dict[str, Any]) -> Any:
        return [faults.pop(0)] if faults else usernet(message)

    with monitor(folder / PORTS_MONITOR, {"human-monitor-command": now_and_then}), running(folder) as (_, begin):
        helper = begin()
        await_(lambda: usernet.forwards == FORWARDED)
        assert helper.poll() is None
        assert not faults


def test_the_next_helper_goes_on_where_a_killed_one_stopped(folder: MachineFolder, usernet: UserNetwork) -> None:
    with monitor(folder / PORTS_MONITOR, {"human-monitor-command": usernet}), running(folder) as (_, begin):
        helper = begin()
        await_(lambda: usernet.forwards == FORWARDED)
        helper.kill()
        helper.wait(timeout=60)
        usernet.lines.clear()
        (folder / ports.NOTE).unlink(missing_ok=True)
        begin()
        await_((folder / ports.NOTE).exists)
        assert (usernet.lines, ports.warnings(folder)) == ([], [])


def await_(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.02)

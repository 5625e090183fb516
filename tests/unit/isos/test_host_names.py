"""The guest's DNS server for the names of the host, compiled for this host, before a socket in the real one's place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import guest_program
import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is the guest's, and the guest is Linux")
PATIENCE = 120.0
A, AAAA, TXT, ANY = 1, 28, 16, 255
HOST = "192.0.2.7"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_program.compiled("host-names", tmp_path_factory.mktemp("names"))


@dataclass
class Names:
    """The program; a client that is connected to it; the server that it asks, and that of the machines' names.

    file: where it looks for the latter.
    """

    process: subprocess.Popen[bytes]
    client: socket.socket
    server: socket.socket
    machines: socket.socket
    file: Path

    def has_network(self) -> None:
        self.file.write_text("{} {}\n".format(*self.machines.getsockname()), encoding="ascii")

    def ask(self, message: bytes) -> bytes:
        self.client.send(message)
        return self.client.recv(65535)

    def workers(self) -> set[int]:
        """Both, as soon as they are there."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + PATIENCE
        while len(found := set(map(int, children.read_text(encoding="ascii").split()))) != 2:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def connect(self) -> socket.socket:
        return socket.create_connection(self.client.getpeername(), PATIENCE)


def udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE)
    made.bind(("127.0.0.1", 0))
    return made


@pytest.fixture
def names(program: Path, tmp_path: Path) -> Iterator[Names]:
    with udp() as place, udp() as client, udp() as server, udp() as machines:
        port = place.getsockname()[1]
        place.close()
        file = tmp_path / "machines-server"
        argv: list[str | Path] = [program, "127.0.0.1", str(port), *map(str, server.getsockname()), HOST, "0", file]
        with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
            client.connect(("127.0.0.1", port))
            try:
                await_answer(client)
                yield Names(process, client, server, machines, file)
            finally:
                process.kill()
                _, err = process.communicate(timeout=PATIENCE)
            assert err == b"", err.decode()


def await_answer(client: socket.socket) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            client.send(query("host.docker.internal"))
            client.recv(65535)
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server didn't open its port")


def query(name: str, kind: int = A, *, number: int = 0x1234, flags: int = 0x0100, extra: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = struct.pack("!6H", number, flags, 1, 0, 0, 1 if extra else 0)
    return head + labels + b"\0" + struct.pack("!HH", kind, 1) + extra


OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)


@pytest.mark.parametrize("name", ["host.docker.internal", "gateway.docker.internal", "Host.DOCKER.Internal"])
@pytest.mark.parametrize("kind", [A, ANY])
@pytest.mark.parametrize("extra", [b"", OPT])
def test_the_hosts_names_have_its_address(names: Names, name: str, kind: int, extra: bytes) -> None:
    answer = names.ask(query(name, kind, extra=extra))
    question = query(name, kind)[12:]
    assert answer[:12] == struct.pack("!6H", 0x1234, 0x8180, 1, 1, 0, 0)
    assert answer[12:-16] == question
    assert answer[-16:] == struct.pack("!HHHIH", 0xC00C, A, 1, 60, 4) + socket.inet_aton(HOST)


@pytest.mark.parametrize("kind", [AAAA, TXT])
def test_the_hosts_names_have_nothing_else(names: Names, kind: int) -> None:
    """An empty answer, not "no such name": else a client would give the name up for all types."""
    asked = query("host.docker.internal", kind)
    assert names.ask(asked) == struct.pack("!6H", 0x1234, 0x8180, 1, 0, 0, 0) + asked[12:]


@pytest.mark.parametrize(
    "message",
    [
        query("example.test"),
        query("example.test", extra=OPT),
        query("docker.internal"),
        query("a.host.docker.internal"),
        query("host.docker.internal.example.test"),
        query("host.docker.internal", flags=0x2800),  # an update
        query("host.docker.internal", flags=0x8180),  # a response
        query("host.docker.internal")[:-1],
        query("host.docker.internal")[:12],
    ],
)
def test_all_else_goes_on_unchanged_and_so_does_its_answer(names: Names, message: bytes) -> None:
    names.client.send(message)
    passed, source = names.server.recvfrom(65535)
    assert passed == message
    names.server.sendto(answer := os.urandom(4000), source)
    assert names.client.recv(65535) == answer


def test_a_slow_answer_delays_no_other(names: Names) -> None:
    sources = []
    for number in range(400):
        names.client.send(query("example.test", number=number))
        sources.append(names.server.recvfrom(65535))
    assert len({source for _, source in sources[-200:]}) == 200, "each query that waits has a port of its own"
    assert names.ask(query("host.docker.internal"))[:2] == b"\x12\x34"
    for message, source in reversed(sources[-200:]):
        names.server.sendto(message, source)
        assert names.client.recv(65535) == message


def ask_by_tcp(stream: socket.socket, message: bytes) -> bytes:
    stream.sendall(struct.pack("!H", len(message)) + message)
    return take_by_tcp(stream)


def take_by_tcp(stream: socket.socket) -> bytes:
    (size,) = struct.unpack("!H", stream.recv(2, socket.MSG_WAITALL))
    return stream.recv(size, socket.MSG_WAITALL)


def test_what_is_too_long_for_udp_comes_by_tcp(names: Names) -> None:
    """The server is asked by TCP only for that; one connection may ask for several names."""
    long, short = query("many.test"), query("few.test", number=7)
    answer = os.urandom(60000)
    with names.connect() as stream, socket.create_server(names.server.getsockname()) as listener:
        listener.settimeout(PATIENCE)
        assert ask_by_tcp(stream, query("host.docker.internal"))[-4:] == socket.inet_aton(HOST)
        stream.sendall(struct.pack("!H", len(short)) + short)
        passed, source = names.server.recvfrom(65535)
        names.server.sendto(passed + b"few", source)
        assert take_by_tcp(stream) == short + b"few"
        stream.sendall(struct.pack("!H", len(long)) + long)
        passed, source = names.server.recvfrom(65535)
        names.server.sendto(passed[:2] + b"\x83\x80" + passed[4:], source)
        upstream, _ = listener.accept()
        with upstream:
            assert take_by_tcp(upstream) == long
            upstream.sendall(struct.pack("!H", len(answer)) + answer)
            assert take_by_tcp(stream) == answer


def test_many_connections_that_say_nothing_keep_no_other_out(names: Names) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(names.connect())
        with names.connect() as stream:
            assert ask_by_tcp(stream, query("host.docker.internal"))[-4:] == socket.inet_aton(HOST)


def test_a_connection_that_has_ended_leaves_no_process(names: Names) -> None:
    names.workers()
    before = descendants(names.process.pid)
    with names.connect() as stream:
        ask_by_tcp(stream, query("host.docker.internal"))
        assert len(descendants(names.process.pid)) == len(before) + 1
    deadline = time.monotonic() + PATIENCE
    while descendants(names.process.pid) != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descendants(process: int) -> set[int]:
    return {child.pid for child in psutil.Process(process).children(recursive=True)}


def test_others_cant_answer(names: Names) -> None:
    names.client.send(message := query("example.test"))
    _, source = names.server.recvfrom(65535)
    with udp() as other:
        other.sendto(b"forged" * 4, source)
    names.server.sendto(message, source)
    assert names.client.recv(65535) == message


MACHINES = ["web", "WEB", "web.machine.internal", "web.1.Machine.Internal"]


@pytest.mark.parametrize("name", MACHINES)
def test_machines_names_are_asked_of_their_server(names: Names, name: str) -> None:
    names.has_network()
    names.client.send(message := query(name, extra=OPT))
    passed, source = names.machines.recvfrom(65535)
    assert passed == message
    names.machines.sendto(answer := message[:3] + b"\0" + os.urandom(100), source)
    assert names.client.recv(65535) == answer


@pytest.mark.parametrize("name", [*MACHINES, "example.test"])
def test_without_a_network_all_go_to_the_other_server(names: Names, name: str) -> None:
    names.client.send(message := query(name))
    assert names.server.recvfrom(65535)[0] == message


@pytest.mark.parametrize(
    "name",
    ["example.test", "machine.internal", "web.machine.internal.test", "xmachine.internal", "a.b", f"{63 * 'x'}.y"],
)
def test_names_of_others_arent_asked_of_it(names: Names, name: str) -> None:
    names.has_network()
    names.client.send(message := query(name))
    assert names.server.recvfrom(65535)[0] == message


def test_a_name_that_it_doesnt_know_may_be_one_of_the_network(names: Names) -> None:
    names.has_network()
    names.client.send(message := query("printer", extra=OPT))
    _, source = names.machines.recvfrom(65535)
    names.machines.sendto(message[:2] + b"\x85\x83" + message[4:], source)
    passed, source = names.server.recvfrom(65535)
    assert passed == message
    names.server.sendto(answer := os.urandom(200), source)
    assert names.client.recv(65535) == answer


def test_a_machines_name_that_it_doesnt_know_is_nobodys(names: Names) -> None:
    names.has_network()
    names.client.send(message := query("db.machine.internal"))
    _, source = names.machines.recvfrom(65535)
    names.machines.sendto(answer := message[:2] + b"\x85\x83" + message[4:], source)
    assert names.client.recv(65535) == answer


def test_a_switch_that_says_nothing(names: Names) -> None:
    names.has_network()
    names.client.send(message := query("web"))
    names.machines.recv(65535)
    assert names.server.recv(65535) == message


def test_a_switch_that_is_gone(names: Names) -> None:
    names.has_network()
    names.machines.close()
    names.client.send(message := query("web"))
    assert names.server.recv(65535) == message


@pytest.mark.parametrize("text", ["", "x", "10.77.1.1", "300.1.1.1 53\n"])
def test_a_file_that_names_no_server(names: Names, text: str) -> None:
    names.file.write_text(text, encoding="ascii")
    names.client.send(message := query("web"))
    assert names.server.recv(65535) == message


def test_a_server_that_is_gone_is_told_at_once(names: Names) -> None:
    names.server.close()
    assert names.ask(query("example.test")) == struct.pack("!6H", 0x1234, 0x8182, 0, 0, 0, 0)


def test_too_short_a_message_is_dropped(names: Names) -> None:
    names.client.send(b"short")
    assert names.ask(query("host.docker.internal"))[:2] == b"\x12\x34"


def test_a_worker_that_dies_is_replaced_and_no_query_is_lost(names: Names) -> None:
    first = names.workers()
    for worker in first:
        os.kill(worker, signal.SIGKILL)
    assert names.ask(query("host.docker.internal"))[-4:] == socket.inet_aton(HOST)
    with names.connect() as stream:
        assert ask_by_tcp(stream, query("host.docker.internal"))[-4:] == socket.inet_aton(HOST)
    assert not first & names.workers()


def test_the_worker_ends_with_its_parent(names: Names) -> None:
    """It would keep the port from the next parent, which init starts."""
    names.process.kill()
    deadline = time.monotonic() + PATIENCE
    while not is_free(names.client.getpeername()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_free(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as following, contextlib.suppress(OSError):
        following.bind(address)
        return True
    return False

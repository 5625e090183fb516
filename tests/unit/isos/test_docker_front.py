"""The program on the guest's port 2375, compiled for this host, between TLS clients and a socket in dockerd's place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import guest_program
import pytest
from loopback_sockets import port_for_a_server, stop
from machine.isos.machineos import programs

from machine.paths import MachineFolder
from machine.tls import certs

Engine = Callable[[socket.socket], None]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is the guest's, and the guest is Linux")
HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_program.compiled("docker-front", tmp_path_factory.mktemp("front"), *programs.LIBRARIES)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine's folder with all that TLS needs; tls/ in it is as the guest has it."""
    folder = tmp_path_factory.mktemp("pki")
    issue(folder)
    (folder / "tls").mkdir()
    install(folder)
    return folder


def issue(folder: Path) -> None:
    certs.issue_server(folder / "certs", MachineFolder(folder), names=["dev"], addresses=["127.0.0.1"])


def install(folder: Path) -> None:
    """Bring the certificate where the front reads it, as a clone's `resume` does: one file after the other."""
    for name in ("ca.pem", "server.pem", "server-key.pem"):
        shutil.copyfile(folder / name, folder / "tls" / name)


class Front:
    """The program and what it stands before: each connection to the engine is handled by `engine`."""

    def __init__(self, program: Path, folder: Path, pki: Path | None) -> None:
        self.pki = pki
        self.engine: Engine = lambda connection: None
        self.socket = folder / "engine.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen(128)
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()
        self.held = contextlib.ExitStack()
        self.port = self.held.enter_context(port_for_a_server())
        argv: list[str | Path] = [program, str(self.port), self.socket, *([pki / "tls"] if pki else [])]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        self.await_port()

    def await_port(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self.process.poll() is None
            assert time.monotonic() < deadline, "the front didn't open its port"
            time.sleep(0.01)

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            self.engine(connection)

    def client(self, *, shown: bool = True) -> ssl.SSLSocket:
        assert self.pki
        context = ssl.create_default_context(cafile=str(self.pki / "ca.pem"))
        if shown:
            context.load_cert_chain(self.pki / "cert.pem", self.pki / "key.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        try:
            return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise

    def close(self) -> None:
        stop(self.listener)
        self.accepting.join(PATIENCE)
        self.process.terminate()
        _, err = self.process.communicate(timeout=PATIENCE)
        self.held.close()
        assert err == b"", err.decode()


@pytest.fixture
def front(program: Path, pki: Path, tmp_path: Path) -> Iterator[Front]:
    made = Front(program, tmp_path, pki)
    yield made
    made.close()


def heard(connection: socket.socket, size: int = 65536) -> bytes:
    """The engine's side: what it is sent first."""
    return connection.recv(size)


def rest(client: ssl.SSLSocket | socket.socket) -> bytes:
    found = bytearray()
    while block := client.recv(65536):
        found += block
    return bytes(found)


def ask(client: ssl.SSLSocket) -> bytes:
    """With TLS 1.3 a client learns with its first answer only that it was refused."""
    with client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return client.recv(1)


def serial(front: Front) -> int:
    with front.client() as client:
        certificate = client.getpeercert()
        assert certificate
        return int(str(certificate["serialNumber"]), 16)


def test_the_head_of_an_answer_ends_a_record(front: Front) -> None:
    """What follows it was written at the same time: a client that reads the head through a buffer would lose it."""

    def engine(connection: socket.socket) -> None:
        heard(connection)
        connection.sendall(HEAD + b"first frame")

    front.engine = engine
    with front.client() as client:
        client.sendall(b"POST /attach HTTP/1.1\r\n\r\n")
        assert client.recv(65536) == HEAD  # recv never returns more than a record
        assert rest(client) == b"first frame"


def test_so_does_each_of_several_answers(front: Front) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"

    def engine(connection: socket.socket) -> None:
        while heard(connection):
            connection.sendall(answer[:30])
            time.sleep(0.02)  # the end of the head is found across reads
            connection.sendall(answer[30:] + b"ok")

    front.engine = engine
    with front.client() as client:
        for _ in range(3):
            client.sendall(b"GET /_ping HTTP/1.1\r\n\r\n")
            records = [client.recv(65536)]
            while not records[-1].endswith(b"ok"):
                records.append(client.recv(65536))
            assert b"".join(records[:-1]) == answer
            assert records[-1] == b"ok"


def test_the_engine_may_end_first(front: Front) -> None:
    """The good bye of TLS comes after all of its data, so that a client can tell that nothing is missing."""
    sent = os.urandom(3_000_000)
    front.engine = lambda connection: connection.sendall(sent)
    with front.client() as client:
        assert hashlib.sha256(rest(client)).digest() == hashlib.sha256(sent).digest()


def test_much_goes_both_ways_at_once(front: Front) -> None:
    def engine(connection: socket.socket) -> None:
        while block := heard(connection):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)

    front.engine = engine
    sent = os.urandom(5_000_000)
    with front.client() as client:
        assert echoed(client, sent) == sent


def echoed(client: ssl.SSLSocket, sent: bytes) -> bytes:
    """Send and receive in turns, in one thread: OpenSSL allows one caller, and Python 3.11 has no lock."""
    received = bytearray()
    left = memoryview(sent)
    client.setblocking(False)
    deadline = time.monotonic() + PATIENCE
    while len(received) < len(sent):
        assert time.monotonic() < deadline, f"{len(received)} of {len(sent)} bytes came back"
        try:
            if left:
                left = left[client.send(left[:100_000]) :]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            select.select([client], [], [], 0.01)
        try:
            block = client.recv(65536)
        except ssl.SSLWantReadError:
            continue
        if not block:
            break
        received += block
    return bytes(received)


def test_one_who_reads_slowly_holds_up_nobody(front: Front) -> None:
    front.engine = lambda connection: connection.sendall(bytes(20_000_000))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(front.client()) for _ in range(5)]
        with front.client() as quick:
            assert len(rest(quick)) == 20_000_000
        assert len(slow[0].recv(1)) == 1


def test_a_hundred_connections_at_once(front: Front) -> None:
    def engine(connection: socket.socket) -> None:
        connection.sendall(b"<" + heard(connection) + b">")

    front.engine = engine
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(front.client()) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        assert [rest(client) for client in clients] == [b"<%d>" % number for number in range(100)]


def test_who_shows_no_certificate_reaches_nothing(front: Front) -> None:
    called: list[bytes] = []
    front.engine = lambda connection: called.append(heard(connection))
    with pytest.raises(ssl.SSLError):
        ask(front.client(shown=False))
    assert not called


def test_a_certificate_of_another_authority_is_refused(front: Front, tmp_path: Path) -> None:
    issue(tmp_path)
    called: list[bytes] = []
    front.engine = lambda connection: called.append(heard(connection))
    assert front.pki
    shutil.copy(front.pki / "ca.pem", tmp_path / "ca.pem")
    front.pki = tmp_path
    with pytest.raises(ssl.SSLError):
        ask(front.client())
    assert not called


def test_a_server_certificate_is_no_client(front: Front, pki: Path, tmp_path: Path) -> None:
    for name, source in (("ca.pem", "ca.pem"), ("cert.pem", "server.pem"), ("key.pem", "server-key.pem")):
        shutil.copy(pki / source, tmp_path / name)
    front.pki = tmp_path
    with pytest.raises(ssl.SSLError):
        ask(front.client())


def test_plain_http_is_refused(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=PATIENCE) as client:
        client.sendall(b"GET /_ping HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not client.recv(1000).startswith(b"HTTP")


def test_a_renewed_certificate_is_used_at_once_and_open_connections_go_on(front: Front, pki: Path) -> None:
    def engine(connection: socket.socket) -> None:
        while block := heard(connection):
            connection.sendall(block)

    front.engine = engine
    before = serial(front)
    with front.client() as opened:
        issue(pki)
        install(pki)
        assert serial(front) != before
        opened.sendall(b"still here")
        assert opened.recv(100) == b"still here"


def test_half_a_renewal_is_not_used(front: Front, pki: Path) -> None:
    before = serial(front)
    issue(pki)
    shutil.copyfile(pki / "server.pem", pki / "tls/server.pem")  # its key isn't there yet
    assert serial(front) == before
    install(pki)
    assert serial(front) != before


def test_an_engine_that_is_away_ends_the_connection_and_comes_back(front: Front) -> None:
    front.socket.rename(front.socket.with_suffix(".away"))
    with front.client() as client, contextlib.suppress(ssl.SSLError, ConnectionResetError):
        assert client.recv(1) == b""
    front.socket.with_suffix(".away").rename(front.socket)
    front.engine = lambda connection: connection.sendall(b"here")
    with front.client() as client:
        assert rest(client) == b"here"


def test_one_who_vanishes_ends_the_engines_connection(front: Front) -> None:
    ended = threading.Event()

    def engine(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while heard(connection):
                pass
        ended.set()

    front.engine = engine
    client = front.client()
    client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
    client.close()
    assert ended.wait(PATIENCE)


def test_without_tls_bytes_are_passed_on(program: Path, tmp_path: Path) -> None:
    """Also after the client has closed its half. Python can't half-close TLS: there `docker run -i` is the test."""
    front = Front(program, tmp_path, None)
    sent = os.urandom(1_000_000)

    def engine(connection: socket.socket) -> None:
        found = b""
        while block := heard(connection):
            found += block
        connection.sendall(found)

    front.engine = engine
    try:
        with socket.create_connection(("127.0.0.1", front.port), timeout=PATIENCE) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert rest(client) == sent
    finally:
        front.close()

"""Ports through SSH, with a real SSH server in the guest's place."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_sockets import closed_port, stop
from real_sshd import USER, reachable, sshd

from machine.errors import SSHFailed
from machine.ssh.relay import Connection, Reader, Relay
from tests.fixture_types import Made

__all__ = ["reachable", "sshd"]

pytestmark = pytest.mark.usefixtures("store")
# Where the relay listens, as on a machine's address; the services are on 127.0.0.1 under the same numbers.
HOST = "127.77.0.9"
# Seconds: others may use the processors, too.
PATIENCE = 60


def serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    """Sends back what it got once the client has said all."""
    with client, contextlib.suppress(OSError):
        text = b""
        while block := client.recv(65536):
            text += block
        client.sendall(text)


@pytest.fixture
def service() -> Iterator[int]:
    """A service that only the guest reaches."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        stop(listener)
        thread.join(PATIENCE)


@pytest.fixture
def connection(reachable: Made) -> Iterator[Connection]:
    from machine import store

    folder = reachable("dev")
    address = store.read(folder).address
    assert address
    connection = Connection(folder, address, USER)
    yield connection
    connection.close()


@pytest.fixture
def relay(connection: Connection) -> Iterator[Relay]:
    relay = Relay(HOST, connection)
    yield relay
    relay.close()


def ask(port: int, text: bytes) -> bytes:
    with socket.create_connection((HOST, port), timeout=PATIENCE) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        found = b""
        while block := client.recv(65536):
            found += block
        return found


def begin(relay: Relay, port: int, target: str = "127.0.0.1") -> None:
    relay.aim({("tcp", port): target})
    assert relay.add("tcp", port) == ""


def test_a_service_of_the_guests_loopback(relay: Relay, service: int) -> None:
    begin(relay, service)
    assert relay.current() == {("tcp", service)}
    big = bytes(range(256)) * 4096
    assert ask(service, big) == big
    assert [ask(service, b"again") for _ in range(3)] == [b"again"] * 3


def test_a_port_that_is_dropped_is_closed_at_once(relay: Relay, service: int) -> None:
    begin(relay, service)
    relay.drop("tcp", service)
    assert relay.current() == set()
    with pytest.raises(OSError, match="refused"):
        ask(service, b"")
    begin(relay, service)


def test_a_port_that_leads_elsewhere_now_is_opened_anew(relay: Relay, service: int) -> None:
    begin(relay, service, "127.0.0.2")
    relay.aim({("tcp", service): "127.0.0.1"})
    assert relay.current() == set()
    begin(relay, service)
    relay.aim({("tcp", service): "127.0.0.1"})
    assert relay.current() == {("tcp", service)}
    assert ask(service, b"x") == b"x"


def test_a_port_that_the_host_has(relay: Relay) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        relay.aim({("tcp", port): "127.0.0.1"})
        assert relay.add("tcp", port) == f"another program of this host uses it on {HOST}"
    assert relay.current() == set()


def test_nobody_listens_in_the_guest(relay: Relay, connection: Connection, service: int, unused: int) -> None:
    relay.aim({("tcp", service): "127.0.0.1", ("tcp", unused): "127.0.0.1"})
    assert [relay.add("tcp", port) for port in (service, unused)] == ["", ""]
    assert ask(service, b"x") == b"x"
    before = connection._client
    with contextlib.suppress(ConnectionResetError):
        assert ask(unused, b"x") == b""
    assert connection._client is before, "that is no fault of the connection"


@pytest.fixture
def unused() -> Iterator[int]:
    with closed_port() as port:
        yield port


def test_a_connection_that_broke_is_made_again(relay: Relay, connection: Connection, service: int) -> None:
    begin(relay, service)
    assert ask(service, b"one") == b"one"
    assert connection._client
    connection._client.close()
    assert ask(service, b"two") == b"two"


def test_the_service_hears_that_its_client_is_gone(relay: Relay) -> None:
    """Some leave without a good bye, as a killed program does that had not read all; services wait for no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        begin(relay, listener.getsockname()[1])
        for text in (b"", bytes(64 << 20)):  # it listens; it talks, and fills what is between
            client = socket.create_connection((HOST, listener.getsockname()[1]), timeout=PATIENCE)
            service, _ = listener.accept()
            with service:
                service.settimeout(PATIENCE)
                client.sendall(b"x")
                assert service.recv(1) == b"x"
                threading.Thread(target=_talk, args=(service, text), daemon=True).start()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                with contextlib.suppress(ConnectionResetError):
                    assert service.recv(1) == b""


def _talk(service: socket.socket, text: bytes) -> None:
    with contextlib.suppress(OSError):
        service.sendall(text)


def test_no_ssh_closes_the_clients_connection(relay: Relay, connection: Connection, service: int) -> None:
    connection.folder.ssh_key.write_text("gone")
    begin(relay, service)
    with contextlib.suppress(ConnectionResetError):
        assert ask(service, b"x") == b""
    with pytest.raises(SSHFailed):
        connection.open("127.0.0.1", service)
    assert "no SSH connection to 127.0.0.1" in connection.trouble
    assert relay.current() == {("tcp", service)}


def test_files_are_read_again_and_again(connection: Connection, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("first\n")
    reader = Reader(connection, (str(one), str(two)))
    assert reader.read() == "first\n"
    two.write_text("second\n")
    assert reader.read() == "first\nsecond\n"
    reader.close()
    assert reader.read() == "first\nsecond\n"


def test_a_reader_whose_connection_breaks_begins_anew(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("first\n")
    reader = Reader(connection, (str(tmp_path / "one"),))
    assert reader.read() == "first\n"
    assert connection._client
    connection._client.close()
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(SSHFailed):
            assert reader.read() == "first\n"
            return
        assert time.monotonic() < deadline

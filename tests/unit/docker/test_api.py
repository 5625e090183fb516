import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loopback_sockets import closed_port

from machine.docker import api
from machine.docker.api import Client
from machine.errors import DockerFailed
from machine.paths import MachineFolder
from machine.spec import Address, Machine
from machine.tls import certs

TLS = Machine("dev", "qemu", "uuid", "mac", "", 1024, 2, 8192)
PLAIN = Machine("dev", "qemu", "uuid", "mac", "", 1024, 2, 8192, tls=False)
EVENTS = [{"Type": "container", "Action": "start", "id": "a"}, {"Type": "container", "Action": "die", "id": "a"}]


class Engine(BaseHTTPRequestHandler):
    """Answers as dockerd 28.5 does."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    goes_on: threading.Event
    half = False
    over: threading.Event

    def version_string(self) -> str:
        return "Docker/28.5.1 (linux)"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        path = re.sub(r"^/v[\d.]+/", "/", path)  # as other clients ask
        if path == "/events":
            self.follow(query)
        elif path == "/_ping":
            self.answer(200, b"OK", "text/plain")
        elif path == "/version":
            self.answer(200, {"Version": "28.5.1", "ApiVersion": "1.51", "MinAPIVersion": "1.24"})
        elif path == "/starting":
            self.answer(503, {"message": "not yet"})
        elif path == "/garbage":
            self.answer(200, b"<html>", "text/html")
        else:
            self.answer(404, {"message": "page not found"})

    def answer(self, code: int, body: object, kind: str = "application/json") -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def follow(self, query: str) -> None:
        self.asked.append(urllib.parse.unquote(query))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in EVENTS:
            self.goes_on.wait(120)
            # Lines and chunks need not begin together.
            line = json.dumps(event).encode() + b"\n"
            for part in (line[:7], line[7:]):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                if self.half:
                    self.over.wait(120)
                    return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is refused, or goes away, is what these tests are about."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[tuple[Address, type[Engine]]]:
    handler: type[Engine] = type(
        "Engine", (Engine,), {"asked": [], "goes_on": threading.Event(), "over": threading.Event()}
    )
    with Server(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Address("127.0.0.1", docker_port=server.server_port), handler
        finally:
            # Threads that answer still don't outlast the test.
            handler.goes_on.set()
            handler.over.set()
            server.shutdown()
            thread.join()


def new_store(store: Path, *addresses: str) -> MachineFolder:
    folder = MachineFolder(store / "machines" / "dev")
    folder.path.mkdir(parents=True)
    certs.issue_server(folder.store / "certs", folder, names=[], addresses=addresses)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MachineFolder:
    return new_store(tmp_path_factory.mktemp("store"), "127.0.0.1")


def context_of(folder: MachineFolder) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.server_cert, folder.server_key)
    context.load_verify_locations(folder.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(params=["tls", "plain"])
def engine(request: pytest.FixtureRequest, folder: MachineFolder) -> Iterator[tuple[Client, type[Engine]]]:
    tls = request.param == "tls"
    with serving(context_of(folder) if tls else None) as (address, handler):
        yield Client(TLS if tls else PLAIN, folder, address, timeout=60), handler


def test_it_answers(engine: tuple[Client, type[Engine]]) -> None:
    client, _ = engine
    assert client.ping()
    assert client.version() == "28.5.1"
    assert api.Client(client.machine, client.folder, client.address).ping()
    assert api.Client(client.machine, client.folder, client.address).version() == "28.5.1"


def test_errors_of_the_engine_are_told(engine: tuple[Client, type[Engine]]) -> None:
    client, _ = engine
    with pytest.raises(DockerFailed, match="answers 404: page not found"):
        client.get("/containers/none/json")
    with pytest.raises(api.Unreachable, match="answers 503: not yet"):
        client.get("/starting")
    with pytest.raises(DockerFailed, match="isn't a Docker daemon"):
        client.get("/garbage")


def test_each_answer_tells_the_version(engine: tuple[Client, type[Engine]], monkeypatch: pytest.MonkeyPatch) -> None:
    client, handler = engine
    assert client.engine == ""
    assert client.ping()
    assert client.engine == "28.5.1"
    monkeypatch.setattr(handler, "version_string", lambda _: "Libpod/5.4.0 (linux)")
    assert client.ping()
    assert client.engine == ""


def test_events_come_as_they_happen(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    events = client.events({"type": ["container"], "label": ['a="&?#']})
    assert next(events) is None
    # Only now does the engine have an event: the first item didn't wait for it.
    handler.goes_on.set()
    assert list(events) == EVENTS
    assert json.loads(handler.asked[0].removeprefix("filters=")) == {"type": ["container"], "label": ['a="&?#']}


def test_events_outlast_the_timeout(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    client.timeout = 2
    events = client.events({})
    next(events)
    threading.Timer(2.5, handler.goes_on.set).start()
    assert list(events) == EVENTS


def test_time_that_passes_without_an_event(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    events = client.container_events(lambda: 0.01)
    assert [next(events) for _ in range(3)] == [True, False, False]
    handler.goes_on.set()
    assert any(events)


def test_an_event_that_stops_half_way_has_a_deadline(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    client.timeout = 2
    handler.half = True
    events = client.container_events(lambda: 0.01)
    handler.goes_on.set()
    with pytest.raises(DockerFailed, match=r"doesn\'t answer on tcp://.* \(asked 2 s\)"):
        list(events)


def test_a_reload_that_an_engine_never_tells_of_has_a_deadline(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    client.timeout = 2
    with pytest.raises(DockerFailed, match=r"doesn\'t answer on tcp://.* \(asked 2 s\)"):
        client.reloaded("1764253811.5", 0)
    client.timeout = 60
    handler.goes_on.set()
    assert client.reloaded("1764253811.5", 0)


def test_leaving_the_events_closes_the_connection(engine: tuple[Client, type[Engine]]) -> None:
    client, handler = engine
    events = client.events({})
    assert isinstance(events, Generator)
    next(events)
    events.close()
    handler.goes_on.set()
    assert client.ping()


@pytest.mark.parametrize("error", [None, BrokenPipeError, ssl.SSLEOFError], ids=["after", "during", "before"])
def test_another_stores_client_is_refused(
    folder: MachineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None
) -> None:
    """The engine may hang up before the request is out: with TLS 1.3 it knows the client only after the client it."""
    other = new_store(tmp_path, "127.0.0.1")
    other.ca.write_bytes(folder.ca.read_bytes())
    request = HTTPConnection.request

    def interrupted(connection: HTTPConnection, method: str, path: str) -> None:
        request(connection, method, path)
        if error:
            raise error

    monkeypatch.setattr(HTTPConnection, "request", interrupted)
    with (
        serving(context_of(folder)) as (address, _),
        pytest.raises(DockerFailed, match="don't match: it doesn't accept our certificate") as caught,
    ):
        api.Client(TLS, other, address).ping()
    assert caught.value.hint == "machine regenerate-certs dev"


def test_another_stores_engine_is_refused(folder: MachineFolder, tmp_path: Path) -> None:
    other = new_store(tmp_path, "127.0.0.1")
    with (
        serving(context_of(other)) as (address, _),
        pytest.raises(DockerFailed, match="don't match: self-signed certificate in certificate chain") as caught,
    ):
        api.Client(TLS, folder, address).ping()
    assert caught.value.hint == "machine regenerate-certs dev"


def test_a_certificate_for_another_address_is_refused(tmp_path: Path) -> None:
    other = new_store(tmp_path, "127.0.0.9")
    with serving(context_of(other)) as (address, _), pytest.raises(DockerFailed, match="IP address mismatch"):
        api.Client(TLS, other, address).ping()


def test_plain_http_instead_of_tls_and_the_reverse(folder: MachineFolder) -> None:
    with serving() as (address, _), pytest.raises(DockerFailed, match="doesn't speak TLS"):
        api.Client(TLS, folder, address).ping()
    with serving(context_of(folder)) as (address, _):
        assert not api.Client(PLAIN, folder, address, timeout=60).ping()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("nonsense")], ids=["absent", "damaged"])
@pytest.mark.parametrize("name", ["ca", "key"])
def test_certificates_that_cant_be_read(tmp_path: Path, name: str, spoil: Callable[[Path], object]) -> None:
    folder = new_store(tmp_path)
    spoil(getattr(folder, name))
    with pytest.raises(DockerFailed, match="can't be used") as caught:
        api.Client(TLS, folder, Address("127.0.0.1", docker_port=1)).ping()
    assert caught.value.hint == "machine regenerate-certs dev"


@pytest.mark.parametrize("machine", [TLS, PLAIN], ids=["tls", "plain"])
def test_nothing_there_yet(folder: MachineFolder, machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", docker_port=listener.getsockname()[1])
        # It takes connections and says nothing, as a forward whose guest is still booting.
        assert not api.Client(machine, folder, address, timeout=0.2).ping()

        def drop() -> None:
            listener.accept()[0].close()  # the one from before
            listener.accept()[0].close()
            with listener.accept()[0] as greeted:
                greeted.recv(4096)

        dropper = threading.Thread(target=drop)
        dropper.start()
        # It drops them at once, or when it has heard us.
        assert not api.Client(machine, folder, address, timeout=60).ping()
        assert not api.Client(machine, folder, address, timeout=60).ping()
        dropper.join()
    with closed_port() as port:
        address = Address("127.0.0.1", docker_port=port)
        assert not api.Client(machine, folder, address).ping()
        with pytest.raises(DockerFailed, match="doesn't answer") as caught:
            api.Client(machine, folder, address).version()
    assert caught.value.hint == "machine status dev"


def test_imports_stay_small() -> None:
    """A process of each running machine lives with this module."""
    program = (
        "import sys, machine.docker.api;"
        "print(*{'ssl', 'http.client', 'urllib.request', 'cryptography', 'paramiko', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []

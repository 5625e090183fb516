"""The engine's HTTP API, as little of it as is needed: is it there, which version, one request, and its events.

Paths have no version in them: an engine then takes its newest, and no engine is too old or too new for us.
http.client and ssl (35 ms) are imported when the first request is made.
"""

from __future__ import annotations

import contextlib
import json
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

from machine.errors import DockerFailed
from machine.paths import MachineFolder
from machine.reasons import NO_TLS
from machine.reasons import reason as why
from machine.spec import Address, Machine

if typing.TYPE_CHECKING:
    import socket
    import ssl
    from http.client import HTTPConnection, HTTPResponse

TIMEOUT = 10.0
# An answer that is larger isn't one of an engine; a listing of a thousand containers has 2 MB.
_LARGEST = 64 << 20


class Unreachable(DockerFailed):
    """The engine doesn't answer, or not yet; a wait may try again."""


class Silent(Unreachable):
    """It doesn't answer in time. seconds: so long was it asked; where: "" where its URL is seen beside."""

    def __init__(self, seconds: float, where: str = "", *, hint: str = "") -> None:
        asked = f"{seconds:.1f}".removesuffix(".0")
        super().__init__(f"Docker doesn't answer{where} (asked {asked} s)", hint=hint)
        self.seconds = seconds


class Client:
    """One engine. timeout in seconds, for connecting and for each read of an answer.

    Each request makes a connection and reads the certificates anew: a long-lived process follows their renewal.
    """

    def __init__(self, machine: Machine, folder: MachineFolder, address: Address, timeout: float = TIMEOUT) -> None:
        self.machine = machine
        self.folder = folder
        self.address = address
        self.timeout = timeout
        # Its version, as each of its answers tells; "" before the first one, and for what only looks like Docker.
        self.engine = ""

    def ping(self) -> bool:
        """Whether the engine answers.

        Raises DockerFailed when something answers that waiting won't mend: a certificate that isn't accepted, or plain
        HTTP where TLS was asked.
        """
        try:
            with self._answer("/_ping") as (response, _):
                return response.read(16) == b"OK"
        except Unreachable:
            return False

    def version(self) -> str:
        """The engine's version, "28.5.1". Raises DockerFailed."""
        answer = self.get("/version")
        if not isinstance(answer, dict) or not isinstance(found := answer.get("Version"), str):
            raise DockerFailed(f"the service on {self.address.url} isn't a Docker daemon")
        return found

    def info(self) -> dict[str, object]:
        """What `docker info` says. Raises DockerFailed."""
        answer = self.get("/info")
        if not isinstance(answer, dict) or "SystemTime" not in answer:
            raise DockerFailed(f"the service on {self.address.url} isn't a Docker daemon")
        return answer

    def reloaded(self, since: str, within: int) -> bool:
        """Whether the engine has read its settings anew since a moment of its clock, or does so within some seconds.

        since: seconds since 1970, also with nanoseconds: "1764253811.123456789". Raises DockerFailed.
        """
        from urllib.parse import quote

        filters = quote(json.dumps({"type": ["daemon"], "event": ["reload"]}))
        until = int(float(since)) + within
        with self._answer(f"/events?since={since}&until={until}&filters={filters}") as (response, connection):
            connection.settimeout(within + self.timeout)
            return bool(response.readline())

    def get(self, path: str) -> object:
        """The JSON answer to GET path. Raises DockerFailed."""
        with self._answer(path) as (response, _):
            return _json(response.read(_LARGEST), self.address)

    def post(self, path: str, body: object = None) -> object:
        """The JSON answer to POST path with a JSON body, None for an empty one. Raises DockerFailed."""
        return self._send("POST", path, body)

    def delete(self, path: str) -> None:
        """Raises DockerFailed."""
        self._send("DELETE", path)

    def _send(self, method: str, path: str, body: object = None) -> object:
        with self._answer(path, method=method, body=body) as (response, _):
            raw = response.read(_LARGEST)
            return _json(raw, self.address) if raw.strip() else None

    def events(
        self, filters: Mapping[str, Sequence[str]], interval: Callable[[], float] | None = None
    ) -> Iterator[dict[str, object] | None]:
        """The engine's events as they happen, {"Type": "container", "Action": "start", …}, until it ends the stream.

        filters: as of `docker events --filter`, {"type": ["container"]}. The first item is None: from then on no event
        is missed, and it is the time to ask how things stand. interval: so many seconds without an event yield None,
        too. Raises DockerFailed, also when the connection breaks.
        """
        from urllib.parse import quote

        asked = quote(json.dumps({key: list(values) for key, values in filters.items()}))
        with self._answer(f"/events?filters={asked}", endless=interval is None) as (response, connection):
            yield None
            while True:
                while interval and not _is_readable(response, connection, interval()):
                    yield None
                if not (line := response.readline()):
                    return
                event = _json(line, self.address)
                assert isinstance(event, dict)
                yield event

    def containers(self) -> list[dict[str, typing.Any]]:
        """The running containers, as GET /containers/json has them. Raises DockerFailed."""
        answer = self.get("/containers/json")
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise DockerFailed(f"the service on {self.address.url} isn't a Docker daemon")
        return answer

    def container_events(self, interval: Callable[[], float]) -> Iterator[bool]:
        """True when following has begun, and each time that a container started or ended; False after each interval.

        interval in seconds. Raises DockerFailed.
        """
        events = self.events({"type": ["container"], "event": ["start", "die"]}, interval)
        next(events, None)
        yield True
        for event in events:
            yield event is not None

    @contextlib.contextmanager
    def _answer(
        self, path: str, *, endless: bool = False, method: str = "GET", body: object = None
    ) -> Iterator[tuple[HTTPResponse, socket.socket]]:
        """A good answer to a request, and the connection. endless: what follows the answer's head may take any time.

        body: what is sent as JSON, nothing for None.
        """
        import ssl

        with self._explained(), contextlib.closing(self._connection()) as connection:
            connection.connect()
            sock: socket.socket = connection.sock
            # Who hangs up before the request is out has said why (a TLS alert): it is read below.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                if body is None:
                    connection.request(method, path)
                else:
                    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                self.engine = _engine(response.getheader("Server", ""))
                if response.status >= 400:
                    raise _refused(self.address, response.status, response.read(4096))
                if endless:
                    sock.settimeout(None)
                yield response, sock

    def _connection(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        host, port = self.address.host, self.address.docker_port
        if not self.machine.tls:
            return HTTPConnection(host, port, timeout=self.timeout)
        return HTTPSConnection(host, port, timeout=self.timeout, context=_context(self.folder))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Every error of the connection as a DockerFailed."""
        import ssl
        from http.client import HTTPException

        url, name = self.address.url, self.machine.name
        try:
            yield
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # A user-mode forward takes connections before the guest is up, then drops them.
            raise Unreachable(f"{url} closed the connection", hint=f"machine status {name}") from error
        except ssl.SSLError as error:
            raise _mistrust(url, name, error) from error
        except TimeoutError as error:
            raise Silent(self.timeout, f" on {url}", hint=f"machine status {name}") from error
        except (OSError, HTTPException) as error:
            raise Unreachable(f"Docker doesn't answer on {url}: {why(error)}", hint=f"machine status {name}") from error


def _engine(server: str) -> str:
    """The version in a header of Docker's: Docker/28.5.1 (linux)."""
    name, _, rest = server.partition("/")
    return rest.partition(" ")[0] if name == "Docker" else ""


def _is_readable(response: HTTPResponse, connection: socket.socket, seconds: float) -> bool:
    """Whether something comes within so many seconds, or has been read already, along with what came before."""
    import selectors

    if _has_buffered(response, connection):
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def _has_buffered(response: HTTPResponse, connection: socket.socket) -> bool:
    """Whether the buffer of http.client, or of TLS, holds more than the end of the last chunk."""
    import ssl

    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return bool(response.fp.peek(1).strip(b"\r\n"))
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        connection.settimeout(timeout)


def _context(folder: MachineFolder) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(folder.ca)
        context.load_cert_chain(folder.cert, folder.key)
    except OSError as error:
        raise DockerFailed(
            f"the certificates in {folder.path} can't be used: {why(error)}",
            hint=f"machine regenerate-certs {folder.name}",
        ) from error
    return context


def _mistrust(url: str, name: str, error: ssl.SSLError) -> DockerFailed:
    if (error.reason or "") in NO_TLS:
        return DockerFailed(f"the service on {url} doesn't speak TLS", hint=f"machine status {name}")
    cause = getattr(error, "verify_message", "") or why(error)
    return DockerFailed(f"the certificates for {url} don't match: {cause}", hint=f"machine regenerate-certs {name}")


def _json(raw: bytes, address: Address) -> object:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise DockerFailed(f"the service on {address.url} isn't a Docker daemon: {why(error)}") from error


def _refused(address: Address, status: int, body: bytes) -> DockerFailed:
    text = body.decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["message"])
    # 5xx: the engine is there, and not well yet.
    kind = Unreachable if status >= 500 else DockerFailed
    return kind(f"Docker on {address.url} answers {status}: {text}")

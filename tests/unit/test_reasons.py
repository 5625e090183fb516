"""What low-level errors are called, and that none reaches the user in Python's words."""

from __future__ import annotations

import ast
import contextlib
import errno
import http.client
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from loopback_sockets import closed_port

from machine.reasons import reason

ROOT = Path(__file__).parents[2]
PYTHONS = ("[Errno", "_ssl.c", "Error", "Exception", "(_", "<", "urlopen", "0x")


def error_of(kind: str) -> BaseException:
    """A real one, as far as it can be had."""
    try:
        _provoke(kind)
    except Exception as error:
        return error
    raise AssertionError(kind)


def _provoke(kind: str) -> None:
    if kind == "refused":
        with closed_port() as port:
            socket.create_connection(("127.0.0.1", port))
    elif kind == "url-refused":
        with closed_port() as port:
            urlopen(f"http://127.0.0.1:{port}/")
    elif kind == "taken":
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
            other.bind(server.getsockname())
    elif kind == "name":
        socket.create_connection(("no-such-host.invalid", 1))
    elif kind == "json":
        json.loads('{"a": }')
    elif kind == "key":
        json.loads("{}")["Driver"]
    elif kind == "utf-8":
        b"\xff".decode()
    elif kind == "pem":
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ROOT / "README.md")
    elif kind == "file":
        Path("/nowhere/at/all").read_text(encoding="utf-8")
    else:
        with _server(kind) as port:
            _ask(kind, port)


def _ask(kind: str, port: int) -> None:
    timeout = 0.2 if kind.startswith("silent") else 60
    if kind in {"silent-tls", "plain-for-tls", "closed-tls"}:
        with socket.create_connection(("127.0.0.1", port), timeout) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        return
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        connection.getresponse().read()


@contextlib.contextmanager
def _server(kind: str) -> Iterator[int]:
    answers = {
        "nonsense": b"SSH-2.0-x\r\n",
        "plain-for-tls": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    }

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                if not kind.startswith("silent"):
                    connection.recv(4096)
                    connection.sendall(answers.get(kind, b""))
                    return
                while connection.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(60)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("refused", "nothing listens there"),
        ("url-refused", "nothing listens there"),
        ("taken", "the port is taken"),
        ("name", "there is no such host, or no name server answers"),
        ("silent", "no answer in time"),
        ("silent-tls", "no answer in time"),
        ("plain-for-tls", "it doesn't speak TLS"),
        ("closed-tls", "the connection was closed"),
        ("closed", "the connection was closed"),
        ("cut", "the connection was closed"),
        ("nonsense", "it doesn't speak HTTP as it should"),
        ("json", "line 1, column 7: Expecting value"),
        ("key", "it has no Driver"),
        ("utf-8", "it isn't UTF-8 text"),
        ("pem", "there is no certificate in the file"),
        ("file", "No such file or directory"),
    ],
)
def test_real_errors(kind: str, words: str) -> None:
    assert reason(error_of(kind)) == words


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "some words") for number in errno.errorcode),
        *(kind() for kind in (OSError, TimeoutError, BrokenPipeError, EOFError, KeyError, ValueError, RuntimeError)),
        socket.gaierror(-2, "Name or service not known"),
        URLError("unknown url type"),
        URLError(TimeoutError("_ssl.c:989: The handshake operation timed out")),
        HTTPError("http://x", 404, "Not Found", Message(), None),
        http.client.BadStatusLine("x"),
        http.client.RemoteDisconnected("Remote end closed connection without response"),
        http.client.IncompleteRead(b"x"),
        ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:2406)"),
        ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF) (_ssl.c:989)"),
        ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)"),
        RecursionError(),
    ],
    ids=repr,
)
def test_no_words_of_python(error: BaseException) -> None:
    words = reason(error)
    assert words
    assert not [sign for sign in PYTHONS if sign in words], words


# Of these, and of what holds them, Python's text isn't for users.
LOW = {"OSError", "TimeoutError", "ConnectionError", "SSLError", "HTTPException", "EOFError", "KeyError", "Exception"}
LOW |= {"BaseException", "UnicodeDecodeError", "JSONDecodeError", "RecursionError"}
# It knows what it does: it is where the words are made, or a fault of ours is reported as it is.
EXEMPT = {"machine/reasons.py", "machine/cli/report.py"}


def _names(handler: ast.ExceptHandler) -> set[str]:
    parts = list(ast.walk(handler.type or ast.Name("Exception")))
    return {part.attr for part in parts if isinstance(part, ast.Attribute)} | {
        part.id for part in parts if isinstance(part, ast.Name)
    }


def _spoken(handler: ast.ExceptHandler) -> Iterator[int]:
    """Lines that put the error itself, or its strerror, into a text."""
    looked_at = {id(part) for node in ast.walk(handler) if isinstance(node, ast.Compare) for part in ast.walk(node)}
    for node in ast.walk(handler):
        value = node.value if isinstance(node, ast.FormattedValue) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"str", "repr"}:
            value = node.args[0] if node.args and id(node) not in looked_at else None
        for part in ast.walk(value) if value else ():
            if isinstance(part, ast.Call):
                break  # reason(error), or whatever makes words of it
            if isinstance(part, ast.Name) and part.id == handler.name:
                yield part.lineno


@pytest.mark.parametrize(
    "source", [path for part in ("machine", "drivers") for path in sorted((ROOT / part).rglob("*.py"))], ids=str
)
def test_low_level_errors_are_put_into_plain_words(source: Path) -> None:
    name = source.relative_to(ROOT).as_posix()
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if name in EXEMPT:
        return
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and _names(node) & LOW]
    spoken = [f"{name}:{line}" for handler in handlers for line in _spoken(handler)]
    assert not spoken, "use machine.reasons.reason(error)"


def test_another_thread_may_be_importing_what_errors_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ls` asks several drivers at once: the first to speak TLS imports ssl while another explains a refused port."""
    for name in ("ssl", "socket"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert reason(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) == "nothing listens there"

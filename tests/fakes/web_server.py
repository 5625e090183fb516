"""A web server of our own on this host's loopback, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Quiet:
    """To be put before the class of a handler: it prints no line for each request."""

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port on 127.0.0.1 where the handler answers, each request in a thread of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(60)


class _Engine(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"OK" if self.path == "/_ping" else b'{"Version": "28.5.1"}')


@contextlib.contextmanager
def docker_engine() -> Iterator[int]:
    """The port of something that answers as Docker does, without TLS."""
    with serving(_Engine) as port:
        yield port

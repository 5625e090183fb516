"""Ports of this host's loopback that nobody else gets while a test needs them, and listeners that end for good."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which nothing listens. One that was only just free is given to the next program that asks for any."""
    with socket.socket() as held:
        held.bind((host, 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def port_for_a_server(host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which another process is to listen.

    On Linux it is held meanwhile: two may have it with SO_REUSEADDR as long as only one listens, and who asks for any
    port gets another.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        port = held.getsockname()[1]
        if sys.platform != "linux":
            held.close()
        yield port


def stop(listener: socket.socket) -> None:
    """Close it, and end the accept() of another thread: on Linux a close alone lets that wait for ever."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()

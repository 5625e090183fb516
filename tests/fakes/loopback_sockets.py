"""Ports of this host's loopback that nobody else gets while a test needs them, and listeners for fakes."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


def listening(path: Path) -> socket.socket:
    """A Unix socket in a folder that may lie deep: its own path may have some hundred characters only."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(dir="/tmp") as short:
            (Path(short) / "to").symlink_to(path.parent)
            listener.bind(f"{short}/to/{path.name}")
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def stop(listener: socket.socket) -> None:
    """Close it, and end the accept() of another thread: on Linux a close alone lets that wait for ever."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()

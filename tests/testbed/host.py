"""Ports of this host, and a QEMU's monitor, past everything that is tested."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil


def monitor(home: Path, command: str) -> None:
    """Give QEMU a command behind the back of `machine`."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as lines:
        client.settimeout(20)
        client.connect(str(home / "qmp.sock"))
        lines.readline()
        for word in ("qmp_capabilities", command):
            lines.write(json.dumps({"execute": word}).encode() + b"\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "error" not in answer, answer


def listening() -> set[tuple[str, int]]:
    """The addresses and ports of this host that take TCP connections or UDP packets."""
    return {
        (found.laddr.ip, found.laddr.port)
        for found in psutil.net_connections("inet4")
        if found.laddr and (found.status == psutil.CONN_LISTEN or (found.type == socket.SOCK_DGRAM and not found.raddr))
    }


@contextlib.contextmanager
def taken(host: str, port: int) -> Iterator[None]:
    """A port that another program of this host has."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, port))
        other.listen()
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

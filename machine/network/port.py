"""One end of a connection between a switch and a card: frames, each with its length before it (QEMU's net/stream.c)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

# Bytes.
# The largest frame that QEMU takes (NET_BUFSIZE), and what waits for a guest that doesn't read: the rest is dropped.
LARGEST = 4096 + 65536
QUEUE = 1 << 20
READ = 1 << 18
# Frames to all, a second, of one machine, and how many may come at once.
FLOODS = 2000.0
HEADER = 4
_SHORTEST = 14


class Port:
    """The connection to one machine. name: the machine's."""

    def __init__(self, name: str, connection: socket.socket) -> None:
        self.name = name
        self.connection = connection
        self.addresses = 0
        self._received = bytearray()
        self._waiting = bytearray()
        self._floods = FLOODS
        self._counted = time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether something waits until the guest reads."""
        return bool(self._waiting)

    def frames(self) -> Iterator[bytes]:
        """Read what is there: whole frames, each with its length before it. Raises OSError when the machine is gone."""
        data = self.connection.recv(READ)
        if not data:
            raise ConnectionResetError("the machine closed its socket")
        received = self._received
        received += data
        at = 0
        while len(received) - at >= HEADER:
            (size,) = struct.unpack_from("!I", received, at)
            if not _SHORTEST <= size <= LARGEST:
                raise ConnectionAbortedError(f"a frame of {size} bytes")
            if len(received) - at < HEADER + size:
                break
            yield bytes(received[at : at + HEADER + size])
            at += HEADER + size
        del received[:at]

    def may_flood(self) -> bool:
        """Whether one more frame of this machine may go to all."""
        now = time.monotonic()
        self._floods = min(FLOODS, self._floods + (now - self._counted) * FLOODS)
        self._counted = now
        if self._floods < 1:
            return False
        self._floods -= 1
        return True

    def send(self, data: bytes) -> None:
        """Send whole frames; drop them when too much waits already. Raises OSError when the machine is gone."""
        if self._waiting:
            if len(self._waiting) < QUEUE:
                self._waiting += data
            return
        self._waiting += data[self._send(data) :]

    def send_more(self) -> None:
        del self._waiting[: self._send(self._waiting)]

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self.connection.send(data)
        except BlockingIOError:
            return 0


def owner(connection: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket, on Linux."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)

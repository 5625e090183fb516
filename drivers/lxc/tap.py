"""The second card of a container, which leads to other machines: python -m machine.drivers.lxc.tap UUID PROCESS.

It makes a TAP device in the network namespace of PROCESS, the container's init, and listens in the machine's folder for
the switch, as QEMU does for its machines. It writes a 1 when both are there, and ends with that process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from machine.network import addresses
from machine.network.port import HEADER, LARGEST, Port, owner
from machine.reasons import reason

from . import mounts
from .layout import Layout

# linux/if_tun.h
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# So many frames are read before others get their turn.
_BURST = 64


class Tap:
    """Carries frames between a TAP device and whoever connects to the socket; one at a time, the last."""

    def __init__(self, device: int, listener: socket.socket, end: int) -> None:
        self.device = device
        self.listener = listener
        self.port: Port | None = None
        self._selector = selectors.DefaultSelector()
        self._selector.register(device, selectors.EVENT_READ, self._from_device)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        # A process descriptor becomes readable when its process has ended.
        self._selector.register(end, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Return when the container has ended."""
        while True:
            for key, events in self._selector.select():
                if key.data is None:
                    return
                key.data(events)

    def _accept(self, _: int) -> None:
        connection, _ = self.listener.accept()
        if owner(connection) != os.geteuid():
            connection.close()
            return
        self._part()
        connection.setblocking(False)
        self.port = Port(addresses.CARD, connection)
        self._selector.register(connection, selectors.EVENT_READ, self._from_switch)

    def _part(self) -> None:
        if self.port:
            self._selector.unregister(self.port.connection)
            self.port.connection.close()
            self.port = None

    def _from_device(self, _: int) -> None:
        frames = b"".join(struct.pack("!I", len(frame)) + frame for frame in self._read())
        if self.port and frames:
            with self._parting():
                self.port.send(frames)
                self._watch(self.port)

    def _read(self) -> Iterator[bytes]:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BURST):
                yield os.read(self.device, LARGEST)

    def _from_switch(self, events: int) -> None:
        port = self.port
        assert port
        with self._parting():
            if events & selectors.EVENT_WRITE:
                port.send_more()
            if events & selectors.EVENT_READ:
                for frame in port.frames():
                    # The card may be down, and its queue may be full.
                    with contextlib.suppress(OSError):
                        os.write(self.device, frame[HEADER:])
            self._watch(port)

    @contextlib.contextmanager
    def _parting(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._part()

    def _watch(self, port: Port) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waits else 0)
        if self._selector.get_key(port.connection).events != events:
            self._selector.modify(port.connection, events, self._from_switch)


def _device(process: int) -> int:
    mounts.enter(process, "net")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", addresses.CARD.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def _listener(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(addresses.SOCKET, dir_fd=place)
    # The folder's own path may be too long for a socket.
    listener.bind(f"/proc/self/fd/{place}/{addresses.SOCKET}")
    os.chmod(addresses.SOCKET, 0o600, dir_fd=place)
    os.close(place)
    listener.listen(1)
    return listener


def main(name: str, process: str) -> int:
    try:
        end = os.pidfd_open(int(process))
        tap = Tap(_device(int(process)), _listener(Layout(name).machine), end)
    except OSError as error:
        print(f"the network card {addresses.CARD}: {reason(error)}", file=sys.stderr)
        return 1
    print("1", end="", flush=True)
    # Who started this waits for the end of its output.
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    tap.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

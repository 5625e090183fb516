"""The switch of one network: python -m machine.network.switch FOLDER.

It connects to the socket that each machine's hypervisor listens on, in the machine's folder (0700), so nobody else can
join, and a machine needs nothing to meet a new switch. Frames have their length before them, as QEMU's stream netdev
has it (net/stream.c). It ends soon after its last machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time
from pathlib import Path

from machine import files, store
from machine.errors import MachineError
from machine.network import addresses, packets
from machine.network.port import HEADER, Port, owner
from machine.network.process import NetworkFolder, alone
from machine.paths import MachineFolder
from machine.reasons import reason
from machine.spec import Machine

# Seconds.
# So often it looks for machines that have come.
LOOK = 0.5
# So long it waits for a machine when it has none.
PATIENCE = 15.0
# Hardware addresses learned of one machine: its own, and those of containers that are bridged to its card.
ADDRESSES = 256
_MULTICAST = 1


class Switch:
    """Carries frames between machines, and answers for their names.

    server: the address where it answers, in 4 bytes, known as soon as there is a machine.
    """

    def __init__(self, folder: NetworkFolder) -> None:
        self.folder = folder
        self.machines = folder.store / "machines"
        self.ports: dict[str, Port] = {}
        self._server = b""
        self._learned: dict[bytes, Port] = {}
        self._others: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._outgoing: dict[Port, list[bytes]] = {}

    def run(self) -> None:
        """Return when there has been no machine for some seconds, or the network's folder is gone."""
        alone_since = time.monotonic()
        looked = 0.0
        while self.folder.path.exists() and time.monotonic() - alone_since < PATIENCE:
            if time.monotonic() - looked > LOOK:
                self.look()
                looked = time.monotonic()
            self.carry(LOOK)
            if self.ports:
                alone_since = time.monotonic()

    def close(self) -> None:
        for port in self.ports.values():
            port.connection.close()
        self._selector.close()

    def look(self) -> None:
        """Connect to machines of this network that have come."""
        came = False
        with contextlib.suppress(OSError), os.scandir(self.machines) as entries:
            for entry in entries:
                if entry.name not in self.ports and not entry.name.startswith("."):
                    came |= self._join(entry.name)
        if came:
            self._note()

    def carry(self, seconds: float) -> None:
        """Carry what has come; wait for it so many seconds."""
        for key, events in self._selector.select(seconds):
            port: Port = key.data
            try:
                if events & selectors.EVENT_WRITE:
                    port.send_more()
                if events & selectors.EVENT_READ:
                    for frame in port.frames():
                        self._take(port, frame)
                self._watch(port)
            except OSError as error:
                self._part(port, reason(error))
            self._deliver()

    def find(self, name: str) -> str | None:
        """The address of the machine that has that name on this network."""
        wanted = name.lower().removesuffix(f".{addresses.DOMAIN}")
        with contextlib.suppress(OSError):
            for found in self.machines.iterdir():
                if found.name.lower() == wanted and (machine := self._read(found.name)):
                    return addresses.of(machine.address) or None
        return None

    def _read(self, name: str) -> Machine | None:
        """The machine, if it is on this network."""
        with contextlib.suppress(MachineError, OSError):
            machine = store.read(MachineFolder(self.machines / name))
            return machine if machine.network == self.folder.name else None
        return None

    def _join(self, name: str) -> bool:
        place = self.machines / name / addresses.SOCKET
        try:
            inode = place.stat().st_ino
            if self._others.get(name) == inode:
                return False
            if not (machine := self._read(name)):
                self._others[name] = inode
                return False
            connection = _connect(place)
        except OSError:  # it is off, or being removed
            return False
        self._server = socket.inet_aton(addresses.server(addresses.of(machine.address)))
        self.ports[name] = port = Port(name, connection)
        self._selector.register(connection, selectors.EVENT_READ, port)
        return True

    def _part(self, port: Port, why: str) -> None:
        if self.ports.pop(port.name, None) is not port:
            return
        _say(f"{port.name} left: {why}")
        self._selector.unregister(port.connection)
        port.connection.close()
        self._outgoing.pop(port, None)
        self._learned = {address: learned for address, learned in self._learned.items() if learned is not port}
        self._note()

    def _watch(self, port: Port) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waits else 0)
        if self._selector.get_key(port.connection).events != events:
            self._selector.modify(port.connection, events, port)

    def _take(self, port: Port, frame: bytes) -> None:
        target, source = frame[4:10], frame[10:16]
        if source[0] & _MULTICAST or source == packets.MAC:
            return
        self._learn(source, port)
        if target == packets.MAC or (target[0] & _MULTICAST and frame[16:18] == b"\x08\x06"):
            answer = packets.answer(frame[HEADER:], self._server, self.find)
            if answer:
                self._outgoing.setdefault(port, []).append(struct.pack("!I", len(answer)) + answer)
            if answer or target == packets.MAC:
                return
        known = self._learned.get(target)
        if known:
            if known is not port:
                self._outgoing.setdefault(known, []).append(frame)
        elif port.may_flood():
            for other in self.ports.values():
                if other is not port:
                    self._outgoing.setdefault(other, []).append(frame)

    def _learn(self, address: bytes, port: Port) -> None:
        before = self._learned.get(address)
        if before is port or port.addresses >= ADDRESSES:
            return
        if before:
            before.addresses -= 1
        self._learned[address] = port
        port.addresses += 1

    def _deliver(self) -> None:
        outgoing, self._outgoing = self._outgoing, {}
        for port, frames in outgoing.items():
            try:
                port.send(b"".join(frames))
                self._watch(port)
            except OSError as error:
                self._part(port, reason(error))

    def _note(self) -> None:
        """Write for `machine network` who is connected; the disk may be full."""
        with contextlib.suppress(OSError):
            files.write(self.folder.ports, json.dumps(sorted(self.ports)) + "\n")


def _connect(path: Path) -> socket.socket:
    """Connect to a socket whose path may be too long for one. Raises OSError, also for a socket of another user's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        if owner(connection) != os.geteuid():
            raise PermissionError(f"{path} is another user's")
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(path: str) -> None:
    folder = NetworkFolder(Path(path))
    with alone(folder) as held:
        if held:
            Switch(folder).run()
            files.remove(folder.ports)


if __name__ == "__main__":
    main(sys.argv[1])

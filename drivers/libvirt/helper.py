"""The helper process of a running machine that is reached on loopback, runs on another host, or shares folders.

It ends when the machine does, of which libvirt's events tell. Meanwhile it keeps the SSH tunnel to another host up,
brings that host's console here, and has `machine.docker.forwarding` forward the ports that containers publish, and
`machine.folders.over_ssh` mount the shared folders.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import helper, store
from machine.docker.forwarding import Forwarding
from machine.docker.ports import Forwards, NoForwards
from machine.errors import MachineError
from machine.folders import over_ssh
from machine.paths import MachineFolder
from machine.run import run
from machine.spec import Address
from machine.usernet import Slirp

from .connection import explained
from .events import run_loop
from .forwards import CONTROL, Tunnel, monitor
from .place import Place, connection_of

if TYPE_CHECKING:
    import libvirt

# The id of the card's -netdev.
NETWORK = "machine"
PAUSE = 0.5
# How often the console is fetched from another host; and the machine's state is asked, should an event be lost.
TICK = 1.0
LONG_TICK = 5.0


def main(path: str) -> None:
    folder = MachineFolder(Path(path))
    with helper.alone(folder) as held:
        if held:
            machine = store.read(folder)
            process = Helper(Place(machine, folder, run, connection_of(machine)))
            try:
                process.watch()
            finally:
                process.close()
    os._exit(0)  # whatever the threads wait for


class Helper:
    def __init__(self, place: Place) -> None:
        run_loop()
        self.place = place
        self.ended = threading.Event()
        self.changed = threading.Event()
        self.tunnel: Tunnel | None = None
        self.console = Console(place) if place.uri.is_remote else None
        self._watched: libvirt.virConnect | None = None
        if place.on_loopback and place.uri.over_ssh:
            self._open_tunnel()
        if place.on_loopback or (place.machine.mounts and not place.uri.is_remote):
            threading.Thread(target=self._follow_docker, daemon=True).start()

    def lives(self) -> bool:
        return not self.ended.is_set()

    @contextlib.contextmanager
    def forwards(self, address: Address) -> Iterator[Forwards]:
        domain = self.place.find()
        if self.tunnel:
            yield self.tunnel
        elif domain is not None and f"user,id={NETWORK}," in _xml(domain):
            yield Slirp(monitor(self.place.find), NETWORK, address)
        else:
            yield NoForwards()

    def watch(self) -> None:
        """Return when the machine has ended, or was removed."""
        import libvirt

        place = self.place
        sharing = over_ssh.Sharing(place.folder, place.address, place.machine.ssh_user, self.lives)
        threading.Thread(target=sharing.run, daemon=True).start()
        stays = helper.staying(place.folder)
        while stays():
            try:
                domain = self.place.find()
                if domain is None or not (domain.isActive() or self._is_active_again(domain)):
                    break
                self._subscribe(domain)
                if self.console:
                    self.console.fetch()
                self.changed.wait(TICK if self.console else LONG_TICK)
                self.changed.clear()
            except (MachineError, OSError, libvirt.libvirtError):
                time.sleep(TICK)  # the connection was lost, or the disk is full; the machine lives on
        if self.console:
            with contextlib.suppress(MachineError, OSError, libvirt.libvirtError):
                self.console.fetch()

    def close(self) -> None:
        self.ended.set()
        if self.tunnel:
            self.tunnel.close()

    def _is_active_again(self, domain: libvirt.virDomain) -> bool:
        """A machine that goes back to a snapshot is off for a moment."""
        time.sleep(TICK)
        return bool(domain.isActive())

    def _subscribe(self, domain: libvirt.virDomain) -> None:
        """An event of the machine, or the end of the connection, ends the wait at once."""
        import libvirt

        connection = self.place.connection.raw
        if connection is not self._watched:
            kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            connection.domainEventRegisterAny(domain, kind, lambda *_: self.changed.set(), None)
            with contextlib.suppress(libvirt.libvirtError):  # not every kind of connection can tell
                connection.registerCloseCallback(lambda *_: self.changed.set(), None)
            self._watched = connection

    def _follow_docker(self) -> None:
        place = self.place
        while self.lives():
            with contextlib.suppress(MachineError, OSError):  # it has no address yet
                Forwarding(place.folder, self, address=place.address(), has_forwards=place.on_loopback).run()
            time.sleep(PAUSE)

    def _open_tunnel(self) -> None:
        place = self.place
        self.tunnel = Tunnel(place.uri, place.folder / CONTROL, place.address(), place.reserved(), place.run)
        threading.Thread(target=self._keep_open, args=(self.tunnel,), daemon=True).start()

    def _keep_open(self, tunnel: Tunnel) -> None:
        while not self.ended.is_set():
            try:
                tunnel.hold(self.place.folder / helper.LOG)
            except (MachineError, OSError) as error:
                print(error, file=sys.stderr)
            time.sleep(PAUSE)


class Console:
    """The console's log on another host, which is a volume there; what is added to it is added to the one here."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.offset = place.folder.console.stat().st_size if place.folder.console.exists() else 0

    def fetch(self) -> None:
        volume = self.place.pool.volume(self.place.volume("console.log"))
        if volume is None:
            return
        stream = self.place.connection.raw.newStream()
        volume.download(stream, self.offset, 0)
        with self.place.folder.console.open("ab") as console:
            while block := stream.recv(1 << 16):
                console.write(block)
                self.offset += len(block)
        stream.finish()


def _xml(domain: libvirt.virDomain) -> str:
    with explained("can't read the machine's definition from libvirt"):
        return str(domain.XMLDesc())

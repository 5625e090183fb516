"""The helper process of a running machine that is reached on loopback.

It ends when the machine does, of which libvirt's events tell. Meanwhile it keeps the SSH tunnel to another host up,
brings that host's console here, and forwards the ports that containers publish.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import docker, store
from machine.errors import DockerFailed, MachineError
from machine.paths import Home
from machine.ports import follow
from machine.run import detach, run

from .forwards import CONTROL, Forwards, Slirp, Tunnel

if TYPE_CHECKING:
    import libvirt

    from .driver import Libvirt

LOCK = "helper.lock"
LOG = "helper.log"
PAUSE = 0.5
# How often the console is fetched from another host; and the machine's state is asked, should an event be lost.
TICK = 1.0
LONG_TICK = 5.0


def ensure(home: Home) -> None:
    """Start the helper of the machine unless it is there."""
    with _lock(home) as free:
        pass
    if free:
        with (home / LOG).open("ab") as log:
            detach([sys.executable, "-m", "machine.drivers.libvirt", home.folder], output=log)


def main(folder: str) -> None:
    from .driver import Libvirt

    home = Home(Path(folder))
    with _lock(home) as free:
        if free:
            helper = Helper(Libvirt(store.read(home), home, run))
            try:
                helper.watch()
            finally:
                helper.close()
    os._exit(0)  # whatever the threads wait for


class Helper:
    def __init__(self, driver: Libvirt) -> None:
        import libvirt

        libvirt.virEventRegisterDefaultImpl()
        self.driver = driver
        self.ended = threading.Event()
        self.changed = threading.Event()
        self.tunnel: Tunnel | None = None
        self.console = Console(driver) if driver.connection.uri.is_remote else None
        self._watched: libvirt.virConnect | None = None
        self._number = -1
        self.forwards = self._forwards() if driver.on_loopback() else Forwards([])
        if driver.on_loopback():
            threading.Thread(target=self._follow, daemon=True).start()

    def watch(self) -> None:
        """Return when the machine has ended, or was removed."""
        import libvirt

        # In a thread of its own: a call of this one would make it return at once, and the loop spin.
        threading.Thread(target=self._take_events, daemon=True).start()
        while self.driver.home.folder.exists():
            try:
                there = self.driver.find()
                if there is None or not (there.isActive() or self._is_active_again(there)):
                    break
                self._subscribe(there)
                self._notice_restart(there)
                if self.console:
                    self.console.fetch()
                self.changed.wait(TICK if self.console else LONG_TICK)
                self.changed.clear()
            except (MachineError, libvirt.libvirtError):
                time.sleep(TICK)  # the connection was lost; the machine need not be
        if self.console:
            with contextlib.suppress(MachineError, libvirt.libvirtError):
                self.console.fetch()

    def close(self) -> None:
        self.ended.set()
        if self.tunnel:
            self.tunnel.close()

    def _is_active_again(self, there: libvirt.virDomain) -> bool:
        """A machine that goes back to a snapshot is off for a moment."""
        time.sleep(TICK)
        return bool(there.isActive())

    def _notice_restart(self, there: libvirt.virDomain) -> None:
        """Another QEMU forwards nothing yet. Docker's events broke off with the old one, and are followed anew."""
        if (number := there.ID()) != self._number:
            self._number = number
            self.forwards.current.clear()

    def _take_events(self) -> None:
        import libvirt

        while not self.ended.is_set():
            libvirt.virEventRunDefaultImpl()

    def _subscribe(self, there: libvirt.virDomain) -> None:
        """An event of the machine, or the end of the connection, ends the wait at once."""
        import libvirt

        connection = self.driver.connection.raw
        if connection is not self._watched:
            kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            connection.domainEventRegisterAny(there, kind, lambda *_: self.changed.set(), None)
            with contextlib.suppress(libvirt.libvirtError):  # not every kind of connection can tell
                connection.registerCloseCallback(lambda *_: self.changed.set(), None)
            self._watched = connection

    def _forwards(self) -> Forwards:
        driver, address = self.driver, self.driver.address()
        if driver.connection.uri.over_ssh:
            control = driver.home / CONTROL
            self.tunnel = Tunnel(driver.connection.uri, control, address, driver.reserved(), driver.run)
            threading.Thread(target=self._keep_open, args=(self.tunnel,), daemon=True).start()
            return self.tunnel
        there = driver.find()
        if there is not None and "user,id=machine," in there.XMLDesc():
            return Slirp(driver.find, address)
        return Forwards([])

    def _keep_open(self, tunnel: Tunnel) -> None:
        while not self.ended.is_set():
            tunnel.hold(self.driver.home / LOG)
            time.sleep(PAUSE)

    def _follow(self) -> None:
        driver = self.driver
        client = docker.Client(driver.machine, driver.home, driver.address())
        while not self.ended.is_set():
            with contextlib.suppress(DockerFailed):
                follow(driver.home, self.forwards, client)
            time.sleep(PAUSE)


class Console:
    """The console's log on another host, which is a volume there; what is added to it is added to the one here."""

    def __init__(self, driver: Libvirt) -> None:
        self.driver = driver
        self.offset = driver.home.console.stat().st_size if driver.home.console.exists() else 0

    def fetch(self) -> None:
        volume = self.driver.pool.volume(self.driver.volume("console.log"))
        if volume is None:
            return
        stream = self.driver.connection.raw.newStream()
        volume.download(stream, self.offset, 0)
        with self.driver.home.console.open("ab") as console:
            while block := stream.recv(1 << 16):
                self.offset += len(block)
                console.write(block)
        stream.finish()


@contextlib.contextmanager
def _lock(home: Home) -> Iterator[bool]:
    """Whether no helper holds the lock; while the block lasts it is ours. A process that ends drops it."""
    with (home / LOCK).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

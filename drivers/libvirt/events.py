"""libvirt's events: the loop that takes them, and those of one machine, on a connection of their own."""

from __future__ import annotations

import threading
import time

from .connection import explained

# Seconds until the loop goes on after an error.
PAUSE = 1.0
LOOP = "libvirt's events"
_starting = threading.Lock()
_loop: threading.Thread | None = None


def run_loop() -> None:
    """Have events taken, for the connections that are opened from now on.

    libvirt allows one thread that does it, however many machines are waited for; it ends with the process. It is none
    that makes calls, too: each call would make the loop return at once, and spin.
    """
    global _loop
    import libvirt

    with _starting:
        if _loop is None:
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_take, name=LOOP, daemon=True)
            _loop.start()


def _take() -> None:
    import libvirt

    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(PAUSE)


class Events:
    """Raises DriverFailed when they can't be had."""

    def __init__(self, uri: str, uuid: str) -> None:
        import libvirt

        self.changed = threading.Event()
        run_loop()
        with explained("can't receive libvirt's events"):
            self.connection = libvirt.open(uri)
            domain = self.connection.lookupByUUIDString(uuid)
            kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            self.connection.domainEventRegisterAny(domain, kind, lambda *_: self.changed.set(), None)

    def wait(self, seconds: float) -> None:
        """Until the machine's state has changed since the last call, and not longer."""
        self.changed.wait(seconds)
        self.changed.clear()

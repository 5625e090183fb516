"""libvirt's events of one machine, on a connection of their own."""

from __future__ import annotations

import threading

from .connection import explained


class Events:
    """Raises DriverFailed when they can't be had. libvirt takes them in a thread, which ends with the process."""

    def __init__(self, uri: str, uuid: str) -> None:
        import libvirt

        self.changed = threading.Event()
        libvirt.virEventRegisterDefaultImpl()
        with explained("libvirt doesn't tell of its events"):
            self.connection = libvirt.open(uri)
            domain = self.connection.lookupByUUIDString(uuid)
            kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
            self.connection.domainEventRegisterAny(domain, kind, lambda *_: self.changed.set(), None)
        threading.Thread(target=self._take, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Until the machine's state has changed since the last call, and not longer."""
        self.changed.wait(seconds)
        self.changed.clear()

    def _take(self) -> None:
        import libvirt

        while True:
            libvirt.virEventRunDefaultImpl()

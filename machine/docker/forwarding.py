"""Keeping the forwards of a running machine in line with the ports that its containers publish.

The same loop for every driver, which brings its hypervisor's part (`Hypervisor`). Whatever fails (Docker, the
hypervisor, SSH, the disk), it is tried again; only the machine's end ends it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from machine import store
from machine.docker import api, listeners, liveness, ports
from machine.docker.ports import Bound
from machine.errors import MachineError
from machine.helper import staying
from machine.paths import MachineFolder
from machine.spec import Address
from machine.ssh.relay import Connection, Reader, Relay

if TYPE_CHECKING:
    from machine.folders.watching import Watching

# Seconds.
# Docker isn't there while the machine boots, or while dockerd restarts.
SHORTEST, LONGEST = 0.5, 2.0
# For an answer of Docker's, the longer the more often there was none: where the processor is interpreted, a TLS
# handshake takes a minute, and each that is given up makes the next one slower.
MOST_PATIENT = 300.0
# So often containers are listed though no event came: a guest that was reset without a word ends no connection.
# In software emulation a list costs the guest 90 ms.
RELIST = 60.0
# So often ports are tried again that were taken.
RETRY = 10.0
# So often sockets of the guest are read while a container has its network. Costs it 30 ms in software emulation.
LOOK = 2.0

Container = dict[str, Any]


class Hypervisor(Protocol):
    """What the helper needs of the hypervisor of one machine."""

    def lives(self) -> bool:
        """Whether the machine is on; asked after each failure. Raises MachineError where that can't be told."""

    def forwards(self, address: Address) -> AbstractContextManager[ports.Forwards]:
        """A way to its forwards, which begin at the machine's address; opened anew after each failure.

        Raises MachineError.
        """


class Forwarding:
    """Keeps forwards in line with published ports until the machine ends.

    watches: whether programs in containers must be told what this computer changes in shared folders. Where the guest
    has our kernel, that tells them. address: where the machine is, None where its record has it. has_forwards: False
    for a machine with an address of its own on a network: its ports are there.
    """

    def __init__(
        self,
        folder: MachineFolder,
        hypervisor: Hypervisor,
        *,
        watches: bool = True,
        address: Address | None = None,
        has_forwards: bool = True,
    ) -> None:
        self.folder = folder
        self.has_forwards = has_forwards
        self.watches = watches and sys.platform == "linux"
        self.hypervisor = hypervisor
        self.stays = staying(folder)
        self.machine = store.read(folder)
        address = address or self.machine.address
        assert address is not None
        self.address = address
        ssh = Connection(folder, self.address, self.machine.ssh_user)
        self.relay = Relay(self.address.host, ssh)
        self.reader = Reader(ssh, listeners.FILES)
        self.patience = api.TIMEOUT
        self.pause = SHORTEST
        self._answered = False
        # What the guest listens on, what was brought in line last, what of it couldn't be, and what was noted of that.
        self._host_network = False
        self._listening: Bound = {}
        self._bound: Bound | None = None
        self._failed: dict[ports.Port, str] = {}
        self._warnings: list[str] = []
        self._noted: list[str] | None = None
        self._noting = threading.Lock()
        self._port_warnings: list[str] = []
        self._watching: Watching | None = None
        self._said = ""

    def run(self) -> None:
        """Return when the machine has ended."""
        while self._lives():
            began = time.monotonic()
            self._answered = False
            try:
                self._follow()
            except Exception as error:  # nobody else forwards this machine's ports
                self._say(error)
            liveness.forget(self.folder)
            time.sleep(self.pause)
            # Don't disturb a booting guest with connections that it must refuse.
            self.pause = min(self.pause * 1.5, LONGEST)
            if not self._answered and time.monotonic() - began > self.patience:
                self.patience = min(self.patience * 1.5, MOST_PATIENT)
        if self._watching:
            self._watching.close()
        self.relay.close()

    def _lives(self) -> bool:
        if not self.stays():
            return False
        try:
            return self.hypervisor.lives()
        except Exception as error:  # that it can't be asked doesn't end the machine
            self._say(error)
            return True

    def _follow(self) -> None:
        """Follow Docker's events until the stream ends. Raises MachineError, OSError."""
        client = api.Client(self.machine, self.folder, self.address, self.patience)
        containers: list[Container] = []
        due = 0.0
        with self.hypervisor.forwards(self.address) as forwards:
            for changed in client.container_events(self._interval):
                if changed or time.monotonic() > due:
                    containers = client.containers()
                    self._has_answered(client.engine)
                    due = time.monotonic() + RELIST
                    self._bound = None
                    self._watch(containers)
                self._bring_in_line(forwards, containers)

    def _has_answered(self, version: str) -> None:
        self._answered = True
        with contextlib.suppress(OSError):  # a full disk: then others ask Docker themselves
            liveness.note(self.folder, version)
        self.pause, self.patience, self._said = SHORTEST, api.TIMEOUT, ""
        with contextlib.suppress(MachineError):
            self.machine = store.read(self.folder)  # `machine set` may have changed it

    def _interval(self) -> float:
        return LOOK if self._host_network else RETRY if self._failed else RELIST

    def _bring_in_line(self, forwards: ports.Forwards, containers: list[Container]) -> None:
        """Bring the forwards in line; calls the hypervisor only if something changed."""
        if not self.has_forwards:
            self._note()
            return
        trouble = self._look(containers)
        bound = {**self._listening, **ports.published(containers)}
        if bound != self._bound or self._failed:
            plan = ports.plan(bound, ports.own(self.address), forwards)
            self.relay.aim(plan.over_ssh)
            self._failed = ports.bring_in_line([(forwards, plan.direct), (self.relay, set(plan.over_ssh))])
            self._bound = bound
            self._warnings = ports.sentences(self._failed | plan.failed)
        if self.relay.current() and self.relay.connection.trouble:
            trouble.append(f"ports that lead through SSH don't answer: {self.relay.connection.trouble}")
        self._port_warnings = [*self._warnings, *trouble]
        self._note()

    def _watch(self, containers: list[Container]) -> None:
        """Have programs in containers hear of changes in the folders of this computer that they bind."""
        if not self.watches or not (self._watching or self.machine.mounts):
            return
        from machine.folders import mount_spec, trees, watching

        if not self._watching:
            self._watching = watching.Watching(self.folder, self.relay.connection, self._note_quietly)
        folders = [mount_spec.parse(text) for text in self.machine.mounts]
        self._watching.bring_in_line(trees.trees(containers, folders))

    def _look(self, containers: list[Container]) -> list[str]:
        """Read the guest's listening sockets while a container has its network, unless the user said no.

        Returns the problem, if any; the last result then stays valid.
        """
        self._host_network = self.machine.host_network_ports and ports.uses_host_network(containers)
        if not self._host_network:
            self.reader.close()
            self._listening = {}
            return []
        try:
            self._listening = listeners.parse(self.reader.read())
        except MachineError as error:
            return [f"new ports of containers with --network host aren't seen: {error.message}"]
        return []

    def _note(self) -> None:
        """Keep the warnings for `machine status`; the threads that watch folders have some, too."""
        with self._noting:
            warnings = [*self._port_warnings, *(self._watching.warnings if self._watching else [])]
            if warnings != self._noted:
                ports.note(self.folder, warnings)
                self._noted = warnings

    def _note_quietly(self) -> None:
        with contextlib.suppress(OSError):  # the disk may be full; the loop tries again
            self._note()

    def _say(self, error: Exception) -> None:
        """A line in the log for each new failure; the disk may be full."""
        text = str(error) if isinstance(error, MachineError | OSError) else traceback.format_exc()
        if text != self._said:
            self._said = text
            with contextlib.suppress(OSError):
                print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)

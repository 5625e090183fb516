"""The helper process of a running machine: what `machine.docker.forwarding` needs of QEMU. It lives as long as QEMU."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import store
from machine.docker.forwarding import Forwarding
from machine.helper import alone, staying
from machine.paths import Image, MachineFolder
from machine.spec import Address
from machine.usernet import Slirp

from . import clock
from .argv import PIDFILE, PORTS_MONITOR
from .process import Process, alive
from .qmp import Qmp
from .vm import has_boot_loader

if TYPE_CHECKING:
    import psutil

NETWORK = "net"
# Seconds; QEMU writes its pidfile before it goes into the background.
PIDFILE_WAIT = 30.0
# So often QEMU is looked at.
LOOK = 0.5
TICK = 0.05


class Hypervisor:
    def __init__(self, folder: MachineFolder, qemu: psutil.Process) -> None:
        self.folder = folder
        self.qemu = qemu

    def lives(self) -> bool:
        # Not psutil's wait: an ended QEMU stays as a zombie for as long as PID 1 takes to notice.
        return alive(self.qemu)

    @contextlib.contextmanager
    def forwards(self, address: Address) -> Iterator[Slirp]:
        with Qmp(self.folder / PORTS_MONITOR) as monitor:
            yield Slirp(monitor.human, NETWORK, address)


def _end_with(qemu: psutil.Process) -> None:
    """End this process as soon as QEMU has ended, whatever it waits for."""
    while alive(qemu):
        time.sleep(LOOK)
    os._exit(0)


def _qemu(folder: MachineFolder) -> psutil.Process | None:
    """The machine's QEMU, None when the machine is removed before it is there. Raises MachineError, OSError."""
    process = Process(folder / PIDFILE, store.read(folder).uuid)
    stays = staying(folder)
    deadline = time.monotonic() + PIDFILE_WAIT
    while stays() and time.monotonic() < deadline:
        if found := process.find():
            return found
        time.sleep(TICK)
    return None


def main(path: str) -> None:
    folder = MachineFolder(Path(path))
    with alone(folder) as held:
        if held:
            if (qemu := _qemu(folder)) is None:
                return
            threading.Thread(target=_end_with, args=(qemu,), daemon=True).start()
            threading.Thread(target=clock.follow, args=(folder, clock.Jumps()), daemon=True).start()
            # A cloud image has no program that tells of changes, and can't mount what QEMU offers.
            is_cloud_image = has_boot_loader(Image(store.read(folder).image))
            if is_cloud_image:
                _share(folder, qemu)
            Forwarding(folder, Hypervisor(folder, qemu), watches=not is_cloud_image).run()


def _share(folder: MachineFolder, qemu: psutil.Process) -> None:
    """Keep the folders of a machine mounted whose guest doesn't: in a thread."""
    from machine.folders import over_ssh

    def address() -> Address:
        found = store.read(folder).address
        assert found is not None
        return found

    sharing = over_ssh.Sharing(folder, address, store.read(folder).ssh_user, lambda: alive(qemu))
    threading.Thread(target=sharing.run, daemon=True).start()

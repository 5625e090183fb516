"""The helper process of a running machine: published container ports appear on the machine's address.

It lives exactly as long as the QEMU process. Docker's event stream says when a container came or went; the forwards of
QEMU's user-mode network are then brought in line with the ports that running containers publish.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import docker, store, wait
from machine.errors import DockerFailed, DriverFailed
from machine.paths import Home
from machine.ports import Port, follow

from . import clock
from .argv import PIDFILE, PORTS_MONITOR
from .process import Process, alive
from .qmp import Qmp

if TYPE_CHECKING:
    import psutil

# Docker isn't there while the machine boots, or while dockerd restarts.
PAUSE = 0.5


class Forwards:
    """The forwards of published ports in one QEMU. taken: those that another program of the host has."""

    def __init__(self, monitor: Qmp, host: str, reserved: set[Port]) -> None:
        self.monitor = monitor
        self.host = host
        self.reserved = reserved
        self.current: set[Port] = set()
        self.taken: set[Port] = set()

    def bring_in_line(self, wanted: set[Port]) -> None:
        for protocol, port in sorted(self.current - wanted):
            self.monitor.human(f"hostfwd_remove net {protocol}:{self.host}:{port}")
            self.current.discard((protocol, port))
        self.taken &= wanted
        for protocol, port in sorted(wanted - self.current - self.reserved):
            if self.monitor.human(f"hostfwd_add net {protocol}:{self.host}:{port}-:{port}"):
                self.taken.add((protocol, port))
            else:
                self.taken.discard((protocol, port))
                self.current.add((protocol, port))


def main(folder: str) -> None:
    home = Home(Path(folder))
    machine = store.read(home)
    address = machine.address
    assert address is not None
    process = wait.until(Process(home / PIDFILE, machine.uuid).find, timeout=30, what="QEMU's pidfile")
    threading.Thread(target=_end_with, args=(process,)).start()
    threading.Thread(target=clock.follow, args=(home, clock.Jumps()), daemon=True).start()
    forwards = Forwards(
        wait.until(lambda: _monitor(home), timeout=30, what="QEMU's monitor"),
        address.host,
        {("tcp", address.docker_port), ("tcp", address.ssh_port)},
    )
    while True:
        with contextlib.suppress(DockerFailed):
            follow(home, forwards, docker.Client(machine, home, address))
        time.sleep(PAUSE)


def _end_with(qemu: psutil.Process) -> None:
    # Not psutil's wait: an ended QEMU stays as a zombie for as long as PID 1 takes to notice.
    while alive(qemu):
        time.sleep(PAUSE)
    os._exit(0)


def _monitor(home: Home) -> Qmp | None:
    try:
        return Qmp(home / PORTS_MONITOR)
    except DriverFailed:
        return None

"""The helper process of a running machine: what `machine.docker.forwarding` needs of the container."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from machine import store
from machine.docker.forwarding import Forwarding
from machine.driver import State
from machine.errors import MachineError
from machine.helper import alone
from machine.network import process
from machine.paths import MachineFolder
from machine.run import run
from machine.spec import Address

from .container import Container
from .slirp4netns import Slirp4netns

# So often the container is looked at, in seconds.
LOOK = 1.0


class Hypervisor:
    def __init__(self, container: Container) -> None:
        self.container = container
        self.process = container.tool.process()

    def lives(self) -> bool:
        """Whether it is on. A container that restarts from inside has another process."""
        if Path(f"/proc/{self.process}/root").exists():
            return True
        time.sleep(LOOK)
        if self.container.state() is State.STOPPED:
            return False
        self.process = self.container.tool.process()
        return True

    @contextlib.contextmanager
    def forwards(self, address: Address) -> Iterator[Slirp4netns]:
        forwards = Slirp4netns(self.container.layout.network_socket, address)
        # After a restart from inside, slirp4netns is another one.
        forwards.open_own()
        yield forwards


def main(path: str) -> None:
    folder = MachineFolder(Path(path))
    with alone(folder) as held:
        if held:
            container = Container(store.read(folder), folder, run, lambda text: None)
            hypervisor = Hypervisor(container)
            if network := container.machine.network:
                threading.Thread(target=process.keep, args=(folder.store, network), daemon=True).start()
            threading.Thread(target=_end_with, args=(hypervisor,), daemon=True).start()
            Forwarding(folder, hypervisor, watches=False).run()


def _end_with(hypervisor: Hypervisor) -> None:
    """End this process as soon as the container has ended, whatever it waits for."""
    while _lives(hypervisor):
        time.sleep(LOOK)
    os._exit(0)


def _lives(hypervisor: Hypervisor) -> bool:
    try:
        return hypervisor.lives()
    except MachineError:  # LXC doesn't answer, for example while the container restarts
        return True

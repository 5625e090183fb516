"""The driver: what LXC is asked to do, and when."""

from __future__ import annotations

import contextlib
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine.driver import Driver, Export, Kind, Machine, Orphan, Reach, Snapshot, State
from machine.errors import MachineError
from machine.run import Run, which

from .options import Options

if TYPE_CHECKING:
    from machine.guest.seed import Lan, Mount

    from .container import Container

# What the helper of a running machine is started as: python -m.
MODULE = "machine.drivers.lxc"
# Seconds. To ask for a container's state takes 10 ms.
LOOK = 0.1


class Lxc(Driver):
    name: ClassVar[str] = "lxc"
    kind: ClassVar[Kind] = Kind.CONTAINER
    networks: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    binds_folders: ClassVar[bool] = True
    Options: ClassVar[type] = Options
    # Of an exported machine: see portable.py.
    parts: ClassVar[frozenset[str]] = frozenset({"data.tar"})

    @property
    def container(self) -> Container:
        from .container import Container

        return Container(self.machine, self.folder, self.run, lambda text: self.say(text))

    @classmethod
    def is_available(cls) -> bool:
        return sys.platform == "linux" and which("lxc-start") is not None

    def check(self) -> list[str]:
        from . import checks

        return [*checks.check(self.machine, self.run), *checks.notes()]

    def create(self) -> None:
        from . import disk

        container = self.container
        if not container.disk.exists():
            disk.make(container.disk, self.machine.disk_mib, self.run)

    def start(self) -> bool:
        container = self.container
        state = container.state()
        if state in {State.STOPPED, State.ERROR}:
            container.start()
        else:
            container.tool.unfreeze()
        from machine import helper

        helper.begin(self.folder, MODULE)
        self._join_network()
        return state is State.SAVED

    def lan(self) -> Lan:
        from machine.network import addresses

        return addresses.card(addresses.CARD, self.machine)

    def _join_network(self) -> None:
        if self.machine.network:
            from machine.network import process

            process.ensure(self.folder.store, self.machine.network)

    def stop(self) -> None:
        container = self.container
        if container.state() is State.SAVED:
            container.tool.unfreeze()
        container.tool.power_off()

    def pause(self, seconds: float) -> None:
        time.sleep(min(seconds, LOOK))

    def kill(self) -> None:
        self.container.end()

    def suspend(self) -> None:
        self.container.tool.freeze()

    def mounts(self) -> tuple[Mount, ...]:
        from machine.folders import mount_spec

        return mount_spec.bound(self.machine.mounts)

    def update_folders(self) -> None:
        self.container.update_folders()

    def resize(self, wanted: Machine) -> list[str]:
        from . import sizes

        return sizes.resize(self.container, wanted)

    def snapshot(self, name: str) -> None:
        from . import snapshots

        snapshots.take(self.container, name)

    def snapshots(self) -> list[Snapshot]:
        from . import snapshots

        return snapshots.all_of(self.container)

    def restore(self, name: str) -> None:
        from . import snapshots

        if snapshots.restore(self.container, name):
            self.start()

    def forget(self, name: str) -> None:
        from . import snapshots

        snapshots.forget(self.container, name)

    def export(self) -> AbstractContextManager[Export]:
        from . import portable

        return portable.export(self.container)

    def reaches(self) -> list[Reach]:
        from . import portable

        return portable.reaches(self.machine)

    def accept(self) -> Machine:
        from . import portable

        return portable.accept(self.container)

    def remove(self) -> None:
        if sys.platform != "linux":
            return
        from . import layout, orphans

        if self.machine.uuid:
            self.container.end()
            return
        for found in layout.containers():
            if found.is_of(self.folder.path):
                orphans.end(found.name, self.folder.path, self.run)

    def state(self) -> State:
        if sys.platform != "linux":
            return State.STOPPED
        state = self.container.state()
        if state is State.RUNNING and self.machine.address:
            from machine import helper

            helper.ensure(self.folder, MODULE)
            self._join_network()
        return state

    def diagnosis(self) -> str:
        return self.container.diagnosis()

    def warnings(self) -> list[str]:
        from machine.docker import ports

        from . import oom

        found = ports.warnings(self.folder)
        with contextlib.suppress(OSError, MachineError):  # it ends at this moment
            killed = oom.warning(self.machine.name, self.machine.uuid, self.container.tool.process())
            found = [killed, *found] if killed else found
        return found

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        if sys.platform != "linux":
            return []
        from . import orphans

        return orphans.find(store, known, run)

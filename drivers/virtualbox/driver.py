"""The driver: what VirtualBox is asked to do, and when."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine import copies, files, helper
from machine.docker.ports import blocked as blocked_ports
from machine.driver import Driver, Export, Machine, Orphan, Reach, Snapshot, State
from machine.errors import DriverFailed, MachineError, NoSuchImage
from machine.paths import Image, same

from . import host, hypervisor, leftovers, network, portable, ports, settings, share
from .options import Options as VirtualBoxOptions
from .options import options_of
from .parse import Info
from .vboxmanage import LONG, VBoxManage, find

if TYPE_CHECKING:
    from machine.folders.mount_spec import Folder
    from machine.guest.seed import Interface, Mount
    from machine.run import Run

_FAULT = re.compile(r"VERR_|rc=-\d+|[Gg]uru|[Ff]atal|panic")


class VirtualBox(Driver):
    name: ClassVar[str] = "virtualbox"
    Options: ClassVar[type] = VirtualBoxOptions
    parts: ClassVar[frozenset[str]] = portable.PARTS

    @property
    def uuid(self) -> str:
        return self.machine.uuid

    @property
    def options(self) -> VirtualBoxOptions:
        return options_of(self.machine)

    @property
    def vboxmanage(self) -> VBoxManage:
        return VBoxManage(self.run, self.folder.store, say=self.say)

    @classmethod
    def is_available(cls) -> bool:
        return find() is not None

    def check(self) -> list[str]:
        version = host.check_version(self.vboxmanage)
        notes = [] if self.options.no_vtx_check else host.check(self.vboxmanage, self.run, version)
        network.check(self.options, self.vboxmanage, version)
        return [*notes, *share.check(self.options)]

    def create(self) -> None:
        info = self.vboxmanage.info(self.uuid)
        if info:
            if _is_whole(info):
                return
            self.remove()  # what an interrupted create has left
        call = self.vboxmanage
        version = call.version() or host.OLDEST
        disk = self.folder / settings.DISK_FILE
        call(*settings.create(self.machine, self.folder))
        call(*settings.modify(self.machine, self.folder, self.options, version))
        call(*settings.controller(self.uuid))
        if not disk.exists():  # import has put it there
            call(*settings.medium(disk, self.machine.disk_mib))
        if shared := share.share_of(self.options):
            for words in share.words(self.machine, shared):
                call(*words)
        network.attach(self.machine, self.folder, self.options, call)
        for card in self.interfaces()[1:]:
            self.say(f"its address on the host-only network is {card.address.partition('/')[0]}")
        # The last call makes it whole.
        call(*settings.attach_disk(self.uuid, disk))

    def start(self) -> bool:
        info = self._own()
        saved = info.state is State.SAVED
        match info.state:
            case State.RUNNING | State.STARTING:
                pass
            case State.PAUSED:
                self.vboxmanage("controlvm", self.uuid, "resume")
            case State.SAVED:
                self._switch_on()
            case State.ERROR:
                raise DriverFailed(
                    f"VirtualBox reports the state {info.word!r} of the machine",
                    hint=f"machine kill {self.machine.name}",
                )
            case State.STOPPED | State.STOPPING:
                self._prepare(info)
                self._switch_on()
        self._begin_helper()
        return saved

    def stop(self) -> None:
        with contextlib.suppress(DriverFailed):  # it is off, or just going off
            self._own()
            self.vboxmanage("controlvm", self.uuid, "acpipowerbutton")

    def kill(self) -> None:
        if info := self.vboxmanage.info(self.uuid):
            copies.refuse(self.machine, self.folder, Path(info.config))
            self.vboxmanage.power_off(self.uuid, info)

    def remove(self) -> None:
        leftovers.remove(self.machine, self.folder, self.vboxmanage)

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        from . import orphans

        return orphans.find(store, known, run)

    def state(self) -> State:
        state = self.info().state
        if state is State.RUNNING:
            self._ensure_helper()
        return state

    def mounts(self) -> tuple[Mount, ...]:
        shared = share.share_of(self.options)
        return (shared.mount,) if shared else ()

    def folders(self) -> list[Folder]:
        from machine.folders.mount_spec import Folder

        shared = share.share_of(self.options)
        return [Folder(Path(shared.folder), shared.path, read_only=False)] if shared else []

    def interfaces(self) -> tuple[Interface, ...]:
        return network.interfaces(self.machine, self.folder)

    def warnings(self) -> list[str]:
        from machine.docker.ports import warnings

        return [*super().warnings(), *self._slowness(), *warnings(self.folder)]

    def _slowness(self) -> list[str]:
        """What the log of a machine that runs says of Windows' hypervisor."""
        if sys.platform != "win32":
            return []
        with contextlib.suppress(MachineError):
            info = self.info()
            if info.state is State.RUNNING and hypervisor.runs_on_it(Path(info.logs, "VBox.log")):
                return [
                    f"it runs on Windows' own hypervisor, many times slower (VBox.log). Remedies: {hypervisor.REMEDIES}"
                ]
        return []

    def diagnosis(self) -> str:
        """The state in VirtualBox's own word, and what its log of the machine has of faults."""
        try:
            info = self.info()
        except MachineError as error:
            return error.message
        lines = [f"VirtualBox says: {info.word}"]
        with contextlib.suppress(OSError):
            log = Path(info.logs, "VBox.log").read_text(encoding="utf-8", errors="replace").splitlines()
            lines += [f"VBox.log: {line}" for line in log[-200:] if _FAULT.search(line)][-5:]
        return "\n".join(lines)

    # Suspend

    def suspend(self) -> None:
        self._own()
        self.vboxmanage("controlvm", self.uuid, "savestate", timeout=LONG)

    # Portable

    def export(self) -> AbstractContextManager[Export]:
        return portable.export(self.machine, self.folder, self.vboxmanage)

    def reaches(self) -> list[Reach]:
        return portable.reaches(self.options)

    def accept(self) -> Machine:
        return portable.accept(self.machine, self.folder, self.vboxmanage)

    # Snapshots

    def snapshot(self, name: str) -> None:
        if any(name == snapshot.name for _, snapshot in self.vboxmanage.snapshots(self._own())):
            raise DriverFailed(f'the snapshot "{name}" already exists', hint="choose another name")
        self.vboxmanage("snapshot", self.uuid, "take", name, timeout=LONG)

    def snapshots(self) -> list[Snapshot]:
        return [snapshot for _, snapshot in self.vboxmanage.snapshots(self.info())]

    def restore(self, name: str) -> None:
        uuid, snapshot = self._snapshot(name)
        self.kill()
        self.vboxmanage("snapshot", self.uuid, "restore", uuid, timeout=LONG)
        if snapshot.running:
            self.start()

    def forget(self, name: str) -> None:
        uuid, _ = self._snapshot(name)
        self.vboxmanage("snapshot", self.uuid, "delete", uuid, timeout=LONG)

    def _snapshot(self, name: str) -> tuple[str, Snapshot]:
        """One that is to be restored or removed."""
        for uuid, snapshot in self.vboxmanage.snapshots(self._own()):
            if snapshot.name == name:
                return uuid, snapshot
        raise DriverFailed(f'there is no snapshot "{name}"', hint=f"machine snapshot ls {self.machine.name}")

    def info(self) -> Info:
        return self.vboxmanage.existing(self.machine)

    def _own(self) -> Info:
        """For a verb that changes the virtual machine. Raises MachineError when that is another folder's."""
        info = self.info()
        copies.refuse(self.machine, self.folder, Path(info.config))
        return info

    def _begin_helper(self) -> None:
        helper.begin(self.folder, ports.MODULE)

    def _ensure_helper(self) -> None:
        helper.ensure(self.folder, ports.MODULE)

    def _prepare(self, info: Info) -> None:
        """Bring a machine that is off in line with what was asked for: its media, size and rules."""
        for port, path in ((settings.SYSTEM, self._system()), (settings.SEED, self.folder.seed)):
            attached = info.media.get(f"{settings.CONTROLLER}-{port}-0", "")
            if path.exists() and not same(Path(attached), path):
                self.vboxmanage(*settings.attach_cd(self.uuid, port, path))
        if changes := self._changes(info):
            self.vboxmanage("modifyvm", self.uuid, *changes)
        files.set_aside(self.folder.console, "console.log.1")

    def _changes(self, info: Info) -> list[str]:
        changes = []
        for field, size in (("memory", self.machine.memory_mib), ("cpus", self.machine.cpus)):
            if info.fields.get(field) != str(size):
                changes += [f"--{field}", str(size)]
        own = settings.forwards(self.machine)
        for rule in info.forwards:
            # A rule of the user's own stays.
            if ports.is_published(rule) or (rule not in own and rule.name in {rule.name for rule in own}):
                changes += ["--natpf1", "delete", rule.name]
        for rule in own:
            if rule not in info.forwards:
                changes += ["--natpf1", str(rule)]
        return changes

    def _system(self) -> Path:
        """The image as a file in the machine's folder; VirtualBox goes by the suffix .iso."""
        image = Image(self.machine.image)
        link = self.folder / f"{image.digest[:12]}.iso"
        if link.exists():
            return link
        if not image.file.exists():
            raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
        try:
            os.link(image.file, link)
        except OSError:  # another file system, or one without links
            shutil.copyfile(image.file, link)
        return link

    def _switch_on(self) -> None:
        # VirtualBox starts without a port that it can't open, and says nothing.
        if blocked := blocked_ports(self.address()):
            raise blocked
        self.vboxmanage("startvm", self.uuid, "--type", self.options.ui_type, timeout=LONG)


def _is_whole(info: Info) -> bool:
    return f"{settings.CONTROLLER}-{settings.DISK}-0" in info.media

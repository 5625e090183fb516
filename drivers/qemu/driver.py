"""The driver: what QEMU is asked to do, and when."""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine import filesystem, packages
from machine.driver import Driver, Export, KeptTemplate, Machine, Reach, Snapshot, State
from machine.errors import CheckFailed, DriverFailed, EngineRefused, MachineError, ToolMissing
from machine.paths import Image
from machine.reasons import reason
from machine.resources import architecture
from machine.run import which

from . import disk, sockets
from .argv import CLONE_OF, DISK, FORWARD, PARTS, SUSPENDED, Memory, folders_server
from .options import ACCELERATORS, Options
from .vm import Vm, find_binary, has_boot_loader, is_paused

if TYPE_CHECKING:
    from machine.guest.seed import Mount

# What the helper of a running machine is started as: python -m.
MODULE = "machine.drivers.qemu"
_OLD_IMAGE = "the image may be of an earlier version, without folders: machine iso build"


class Qemu(Driver):
    name: ClassVar[str] = "qemu"
    cloud_images: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    emulates: ClassVar[bool] = True
    parts: ClassVar[frozenset[str]] = PARTS
    Options: ClassVar[type] = Options

    @property
    def vm(self) -> Vm:
        return Vm(self.machine, self.folder, self.run, self.say)

    @classmethod
    def is_available(cls) -> bool:
        return sys.platform != "win32" and which(f"qemu-system-{architecture()}") is not None

    def check(self) -> list[str]:
        if sys.platform == "win32":
            raise CheckFailed(
                "QEMU machines need Unix sockets, which Python for Windows doesn't have",
                hint="use VirtualBox (--driver virtualbox), or WSL 2, where it works as on Linux",
            )
        accelerator = self.machine.options.get("accelerator", "auto")
        if accelerator not in ACCELERATORS:
            raise CheckFailed(f'invalid accelerator "{accelerator}"', hint=f"choose one of {', '.join(ACCELERATORS)}")
        wanted = self.architecture()
        if wanted != architecture() and accelerator not in {"auto", "tcg"}:
            raise CheckFailed(
                f"{accelerator} runs {architecture()} processors only, and the machine has {wanted}",
                hint="leave out --qemu-accelerator",
            )
        if wanted == "aarch64" and has_boot_loader(Image(self.machine.image)):
            raise CheckFailed(
                "with aarch64 processors only machineos boots: other disks need UEFI, which machine has none of",
                hint="leave out --image",
            )
        find_binary(wanted)
        if which("qemu-img") is None:
            raise ToolMissing("qemu-img", hint=packages.hint("qemu-img"))
        sockets.check(self.folder.path)
        folders_server(self.machine, self.folder)
        filesystem.check_sockets(self.folder.store)
        from machine import acceleration

        note = acceleration.why_not(self.vm.host().accelerator, wanted)
        if note and wanted == architecture() and which("lxc-start"):
            note += "; a system container would run at this computer's own speed: --driver lxc"
        return [note] if note else []

    def create(self) -> None:
        if (self.folder / DISK).exists():
            return
        if self.machine.options.get("cold") or not Image(self.machine.image).clones.exists():
            disk.make(self.vm)
            return
        from . import clone

        try:
            clone.lay_disk(self.vm)
        except EngineRefused:
            raise  # and so would the machine's own
        except (MachineError, OSError) as error:
            self.say(f"no template ({reason(error)}): booting cold")
            disk.make(self.vm)

    def start(self) -> bool:
        from . import suspended

        vm = self.vm
        suspended.settle(vm)
        if vm.process.find():
            with vm.monitor() as monitor:
                suspended.go_on(monitor, self.folder)
            return False
        warm = True
        if (self.folder / SUSPENDED).exists():
            suspended.wake(vm)
        elif (self.folder / CLONE_OF).exists():
            warm = self._start_clone()
        else:
            vm.launch(Memory(self.machine.memory_mib))
            warm = False
        self._begin_helper()
        return warm

    def stop(self) -> None:
        with contextlib.suppress(DriverFailed), self.vm.monitor() as monitor:
            if is_paused(monitor.execute("query-status").get("status")):
                from . import suspended

                suspended.go_on(monitor, self.folder)
            monitor.execute("system_powerdown")

    def kill(self) -> None:
        from . import suspended

        self.vm.end()
        suspended.forget(self.folder)

    def suspend(self) -> None:
        from . import suspended

        suspended.suspend(self.vm)

    def resize(self, wanted: Machine) -> list[str]:
        from . import sizes

        return sizes.resize(self.vm, wanted)

    def export(self) -> AbstractContextManager[Export]:
        from . import portable

        return portable.export(self.vm)

    def reaches(self) -> list[Reach]:
        return []

    @property
    def relays_folders(self) -> bool:
        """A cloud image knows nothing of our seed's folders, and cloud-init mounts them at the first boot only."""
        return has_boot_loader(Image(self.machine.image))

    def mounts(self) -> tuple[Mount, ...]:
        if not self.machine.mounts or self.relays_folders:
            return ()
        from machine.folders import mount_spec

        return mount_spec.mounts(self.machine.mounts)

    def unmounted(self, timeout: float = 0.0) -> dict[str, str]:
        from machine.folders import mount_spec, over_ssh

        if self.relays_folders:
            return over_ssh.unmounted(self.folder, [folder.target for folder in self.folders()], timeout)
        # Its guest mounts them before its Docker starts, and so makes the server make this file.
        if not (self.folder / mount_spec.DATABASE).exists():
            return {folder.target: _OLD_IMAGE for folder in self.folders()}
        return super().unmounted(timeout)

    def can_mount(self) -> bool:
        if self.relays_folders:
            return True
        process = self.vm.process.find()
        return process is not None and any(FORWARD in word for word in process.cmdline())

    def accept(self) -> Machine:
        from . import portable

        return portable.accept(self.vm)

    @classmethod
    def templates(cls, store: Path) -> list[KeptTemplate]:
        from . import template

        return template.list_kept(store)

    @classmethod
    def remove_template(cls, store: Path, key: str) -> None:
        from . import template

        template.remove(store, key)

    @classmethod
    def sweep_templates(cls, store: Path) -> None:
        from . import template

        template.sweep(store)

    def snapshot(self, name: str) -> None:
        from . import snapshots

        snapshots.take(self.vm, name)

    def snapshots(self) -> list[Snapshot]:
        from . import snapshots

        return snapshots.all_of(self.vm)

    def restore(self, name: str) -> None:
        from . import snapshots

        snapshots.restore(self.vm, name)
        if self.vm.process.find():
            self._begin_helper()

    def forget(self, name: str) -> None:
        from . import snapshots

        snapshots.forget(self.vm, name)

    def remove(self) -> None:
        self.vm.remove()

    def state(self) -> State:
        state = self.vm.state()
        if state is State.RUNNING and self.machine.address:
            from machine import helper

            helper.ensure(self.folder, MODULE)
        return state

    def diagnosis(self) -> str:
        return self.vm.diagnosis()

    def warnings(self) -> list[str]:
        from machine.docker import ports

        return super().warnings() + ports.warnings(self.folder)

    def _start_clone(self) -> bool:
        """Whether the clone goes on from its template; when that fails, it boots."""
        from . import clone

        try:
            clone.start(self.vm)
            return True
        except (MachineError, OSError) as error:
            self.say(f"cloning failed ({reason(error)}): booting cold")
        clone.abandon(self.vm)
        self.vm.launch(Memory(self.machine.memory_mib))
        return False

    def _begin_helper(self) -> None:
        from machine import helper

        if self.relays_folders:
            from machine.folders import over_ssh

            over_ssh.forget(self.folder)
        helper.begin(self.folder, MODULE)

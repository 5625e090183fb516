"""A virtual machine that somebody else made, docker-machine as a rule: switched on and off, and otherwise left alone.

Its settings and files aren't changed, and `rm` forgets it and nothing more. Its system, Docker and certificates are as
whoever made it has set them up, and its address is the one on its host-only network.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from machine.driver import Address, Kind, Machine, NoOptions, Orphan
from machine.errors import CheckFailed, DriverFailed, MachineError
from machine.paths import same
from machine.reasons import reason

from . import parse
from .driver import VirtualBox
from .parse import Info
from .vboxmanage import LONG, VBoxManage

if TYPE_CHECKING:
    from machine.folders.mount_spec import Folder
    from machine.guest.seed import Interface, Mount
    from machine.run import Run

# What the guest additions tell of the second card; the first is docker-machine's NAT.
_ADDRESS = "/VirtualBox/GuestInfo/Net/1/V4/IP"


class ExistingVM(VirtualBox):
    name: ClassVar[str] = "virtualbox-adopted"
    Options: ClassVar[type] = NoOptions
    loopback: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.EXISTING_VM

    @classmethod
    def identify(cls, folder: Path, name: str, store: Path, run: Run) -> str:
        settings = folder / name / f"{name}.vbox"
        try:
            uuid = parse.uuid(settings.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckFailed(f"its virtual machine doesn't exist: {reason(error)}") from error
        info = VBoxManage(run, store).info(uuid)
        if info is None or not same(Path(info.config), settings):
            raise CheckFailed("its virtual machine is no longer registered in VirtualBox")
        return uuid

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        return []

    def check(self) -> list[str]:
        raise CheckFailed(
            "this driver takes over existing machines and can't create one", hint="machine import-docker-machine"
        )

    def create(self) -> None:
        self.check()

    def remove(self) -> None:
        self.say("its virtual machine stays in VirtualBox: machine didn't make it")

    def address(self) -> Address:
        options = self.machine.options
        return Address(str(options["ip_address"]), int(str(options["engine_port"])), int(str(options["ssh_port"])))

    def mounts(self) -> tuple[Mount, ...]:
        return ()

    def folders(self) -> list[Folder]:
        return []

    def interfaces(self) -> tuple[Interface, ...]:
        return ()

    def warnings(self) -> list[str]:
        """docker-machine asks for the address each time; DHCP as a rule gives the same one."""
        known = self.address().host
        with contextlib.suppress(MachineError):
            told = self.vboxmanage("guestproperty", "get", self.uuid, _ADDRESS)
            now = told.partition("Value:")[2].strip()
            if now and now != known:
                return [f"its address has changed from {known} to {now} since it was taken over: take it over again"]
        return []

    def diagnosis(self) -> str:
        return "\n".join([super().diagnosis(), *self.warnings()])

    def _prepare(self, info: Info) -> None:
        """Nothing: it has all that it needs."""

    def _switch_on(self) -> None:
        try:
            self.vboxmanage("startvm", self.uuid, "--type", self.options.ui_type, timeout=LONG)
        except DriverFailed as error:
            # It may have to make the host-only adapter anew, which is its own.
            error.hint = error.hint or f"docker-machine start {self.machine.name}"
            raise

    def _begin_helper(self) -> None:
        """Nothing: all of its ports are reached at its own address."""

    def _ensure_helper(self) -> None:
        """Nothing, as above."""

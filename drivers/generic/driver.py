"""An existing Linux host that SSH reaches; the core sets up Docker on it.

The host belongs to the user: it is never switched on or off, and rm leaves it and its Docker unchanged. Folders of
this computer are mounted there only when asked for, by the helper (helper.py).
"""

from __future__ import annotations

import shlex
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from machine import paths
from machine.driver import Driver, Kind, State
from machine.errors import CheckFailed, DriverFailed, MachineError
from machine.reasons import reason
from machine.spec import DOCKER_PORT, Address

# Seconds.
TIMEOUT, UNMOUNT = 5.0, 30.0
# What the helper of a host with folders of this computer is started as: python -m.
HELPER = "machine.drivers.generic"
_TABLE = "/proc/mounts"
# What ssh itself tries, the best first.
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class Options:
    ip_address: str = field(
        default="", metadata={"help": "The host's address or name.", "metavar": "HOST", "envvar": "GENERIC_IP_ADDRESS"}
    )
    ssh_user: str = field(
        default="root",
        metadata={
            "help": "The user to log in as: root, or one who may use sudo without a password.",
            "metavar": "USER",
            "envvar": "GENERIC_SSH_USER",
            "sets": "ssh_user",
            "convert": str,
        },
    )
    ssh_key: str = field(
        default="",
        metadata={
            "help": "The private key. Default: one of ~/.ssh.",
            "metavar": "FILE",
            "envvar": "GENERIC_SSH_KEY",
        },
    )
    ssh_port: int = field(
        default=22, metadata={"help": "The port of its SSH server.", "metavar": "PORT", "envvar": "GENERIC_SSH_PORT"}
    )
    engine_port: int = field(
        default=DOCKER_PORT, metadata={"help": "Docker's port.", "metavar": "PORT", "envvar": "GENERIC_ENGINE_PORT"}
    )
    host_key: str = field(
        default="",
        metadata={
            "help": "The host's public key (ssh-ed25519 AAAA...) or its fingerprint (SHA256:...). Default: trust the"
            " key at the first connection.",
            "metavar": "KEY",
            "envvar": "GENERIC_HOST_KEY",
        },
    )
    install_url: str = field(
        default="",
        metadata={
            "help": "A script that installs Docker, in the place of the distribution's own package.",
            "metavar": "URL",
            "flag": "--engine-install-url",
            "envvar": "MACHINE_DOCKER_INSTALL_URL",
        },
    )


class Generic(Driver):
    name: ClassVar[str] = "generic"
    Options: ClassVar[type] = Options
    loopback: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.HOST
    shares: ClassVar[bool] = True
    user: ClassVar[str] = "root"

    def check(self) -> list[str]:
        if not self._host:
            raise CheckFailed(
                "--generic-ip-address is required",
                hint=f"machine create --driver generic --generic-ip-address HOST {self.machine.name}",
            )
        self._key()
        self._reach()
        return []

    def create(self) -> None:
        target = self.folder.ssh_key
        if not target.exists():
            target.touch(mode=0o600)
            shutil.copyfile(self._key(), target)
            # ssh takes the public half for the private one's when it stands beside it.
            public = self._key().with_name(f"{self._key().name}.pub")
            if public.exists():
                shutil.copyfile(public, target.with_name(f"{target.name}.pub"))

    def start(self) -> bool:
        try:
            self._reach()
        except CheckFailed as error:
            raise DriverFailed(f"{error.message}; this driver can't switch the host on") from error
        return False

    def stop(self) -> None:
        raise DriverFailed(
            "the driver generic can't switch hosts off",
            hint=f"to shut it down nevertheless: machine ssh {self.machine.name} sudo poweroff",
        )

    def kill(self) -> None:
        self.stop()

    def remove(self) -> None:
        """Leave the host as it is, but for our folders: without this computer, what uses them would wait."""
        if self.machine.mounts and self.folder.known_hosts.exists():
            self._unmount({folder.target for folder in self.folders()})

    def _unmount(self, targets: set[str]) -> None:
        from machine.folders import mount_spec
        from machine.ssh.remote import Shell

        try:
            shell = Shell(self.folder, self.address(), self.machine.ssh_user)
            # The host may have something else at that place.
            if ours := sorted(targets & mount_spec.mounted(shell.read(_TABLE) or "")):
                shell.run(["umount", "-l", *ours], timeout=UNMOUNT)
        except MachineError as error:
            self.say(f"the host may still have our folders ({error.message}); there: umount -l {shlex.join(targets)}")

    def state(self) -> State:
        try:
            self._reach()
        except CheckFailed:
            return State.STOPPED
        self._ensure_helper()
        return State.RUNNING

    def address(self) -> Address:
        return Address(self._host, self._number("engine_port"), self._number("ssh_port"))

    @property
    def relays_folders(self) -> bool:
        return True

    def shares_home(self) -> bool:
        """What root of the host reads there is for the user to decide."""
        return False

    def unmounted(self, timeout: float = 0.0) -> dict[str, str]:
        from machine.folders import over_ssh

        self._ensure_helper()
        targets = [folder.target for folder in self.folders()]
        return over_ssh.unmounted(self.folder, targets, timeout) if targets else {}

    def _ensure_helper(self) -> None:
        if self.machine.mounts and self.folder.known_hosts.exists():
            from machine import helper

            helper.ensure(self.folder, HELPER)

    def host_key(self) -> str:
        return str(self.machine.options.get("host_key", ""))

    def diagnosis(self) -> str:
        return f"the host's SSH server {'answers' if self.state() is State.RUNNING else 'does not answer'}"

    @property
    def _host(self) -> str:
        return str(self.machine.options.get("ip_address", ""))

    def _number(self, option: str) -> int:
        return int(str(self.machine.options.get(option, getattr(Options, option))))

    def _key(self) -> Path:
        if given := str(self.machine.options.get("ssh_key", "")):
            candidates = [paths.expanded(given)]
        else:
            candidates = [paths.user_home() / ".ssh" / name for name in _KEYS]
        for path in candidates:
            if path.is_file():
                return path
        raise CheckFailed(
            f"no SSH key was found: {' or '.join(map(str, candidates))}", hint="give one: --generic-ssh-key FILE"
        )

    def _reach(self) -> None:
        place = (self._host, self._number("ssh_port"))
        try:
            socket.create_connection(place, TIMEOUT).close()
        except OSError as error:
            raise CheckFailed(
                f"{place[0]} doesn't answer on port {place[1]}: {reason(error)}",
                hint="check that the host runs; if its SSH server has another port: --generic-ssh-port PORT",
            ) from error

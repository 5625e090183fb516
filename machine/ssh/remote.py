"""Commands and files on a machine, as root, over SSH."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from machine import ssh
from machine.paths import MachineFolder
from machine.run import Completed
from machine.spec import Address

_READ = 'if [ -e "$1" ]; then echo there; cat "$1"; fi'
_WRITE = 'mkdir -p "${1%/*}" && (umask 077; cat >"$1.new") && chmod "$2" "$1.new" && mv "$1.new" "$1"'


class Remote(Protocol):
    """What provisioning needs of a machine; `Shell` below is the real one."""

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        """Run a command as root. timeout in seconds. Raises SSHFailed, ToolFailed, WaitTimeout."""

    def read(self, path: str) -> str | None:
        """The text of a file, None when there is none."""

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Replace the file atomically; its folder is made if need be."""


@dataclass(frozen=True)
class Shell:
    """The way into a machine: its folder has the keys, user logs in."""

    folder: MachineFolder
    address: Address
    user: str

    def ready(self, timeout: float = ssh.CONNECT_TIMEOUT, *, expected: bool = False) -> bool:
        """See `ssh.ready`."""
        return ssh.ready(self.folder, self.address, self.user, timeout, expected=expected)

    def interactive(self, command: Sequence[str] = (), *, extra: Sequence[str] = ()) -> int:
        """As its user; see `ssh.interactive`."""
        return ssh.interactive(self.folder, self.address, self.user, command, extra=extra)

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        as_root = [] if self.user == "root" else ["sudo", "-n"]
        words = [shlex.join([*as_root, *argv])]
        return ssh.run(self.folder, self.address, self.user, words, input=input, check=check, timeout=timeout)

    def read(self, path: str) -> str | None:
        printed = self.run(["sh", "-c", _READ, "sh", path]).stdout
        mark, _, text = printed.partition("\n")
        return text if mark == "there" else None

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.run(["sh", "-c", _WRITE, "sh", path, f"{mode:o}"], input=text.encode())

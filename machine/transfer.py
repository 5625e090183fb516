"""Copy files and mount folders with tools that use SSH: scp, rsync, sshfs.

They get an ssh_config file with the machines' entries, so that each machine has its own key, port and pinned host key.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import packages
from machine.errors import MachineError, ToolMissing, Usage
from machine.instance import running
from machine.run import run, stream, which
from machine.ssh import client_config

LOCAL = "localhost"
# rsync's exit code when the other side isn't rsync (rsync(1)).
_NO_PROTOCOL = {12, 127}
# sshfs needs FUSE, which Windows and macOS don't have of their own.
_SSHFS = {
    "darwin": "install macFUSE and its sshfs; or copy: machine scp",
    "win32": "copy the files: machine scp",
}


@dataclass(frozen=True)
class Place:
    """A file on this host (machine is None) or on a machine; an empty user means the machine's own."""

    path: str
    machine: str | None = None
    user: str = ""

    def __str__(self) -> str:
        if self.machine is None:
            # A name with a colon or a leading dash would be taken for something else.
            return self.path if Path(self.path).is_absolute() else f"./{self.path}"
        return f"{self.user}@{self._host}" if self.user else self._host

    @property
    def _host(self) -> str:
        assert self.machine is not None
        return f"{client_config.alias(self.machine)}:{self.path}"


def place(text: str, *, platform: str = sys.platform) -> Place:
    """The place that `[[USER@]MACHINE:]PATH` names; localhost: and a path with a slash before the colon are here."""
    host, colon, path = text.partition(":")
    drive = platform == "win32" and len(host) == 1
    if not colon or "/" in host or drive:
        return Place(text)
    user, _, machine = host.rpartition("@")
    return Place(path or ".") if machine == LOCAL else Place(path, machine, user)


def copy(source: Place, target: Place, *, recursive: bool, delta: bool, quiet: bool) -> int:
    """Copy, by rsync when delta is true, else by scp; returns the tool's exit code. Raises Usage, NotRunning."""
    if delta and source.machine and target.machine:
        raise Usage("rsync can't copy from one machine to another", hint="leave out --delta")
    tool = "rsync" if delta else "scp"
    if not which(tool):
        raise ToolMissing(tool, hint=f"install {tool} on this host" + ("" if delta else ": it is part of OpenSSH"))
    with _configuration([place.machine for place in (source, target) if place.machine]) as config:
        argv = (_rsync if delta else _scp)(config, source, target, recursive=recursive, quiet=quiet)
        code = stream(argv).code
    if delta and code in _NO_PROTOCOL:
        raise MachineError(
            "rsync failed: this host and the machine must both have it",
            hint="leave out --delta, or install rsync in the machine",
        )
    return code


def _scp(config: Path, source: Place, target: Place, *, recursive: bool, quiet: bool) -> list[str]:
    # -3: between two machines the data pass through here, because these know nothing of each other.
    return [
        *("scp", "-3", "-F", str(config)),
        *(["-r"] if recursive else []),
        *(["-q"] if quiet else []),
        *("--", str(source), str(target)),
    ]


def _rsync(config: Path, source: Place, target: Place, *, recursive: bool, quiet: bool) -> list[str]:
    return [
        *("rsync", "--links", "--perms", "--times", "--compress", "-e", shlex.join(["ssh", "-F", str(config)])),
        *(["--recursive"] if recursive else []),
        *(["--quiet"] if quiet else []),
        *(["--progress"] if not quiet and sys.stdout.isatty() else []),
        *("--", str(source), str(target)),
    ]


@contextlib.contextmanager
def _configuration(machines: Sequence[str]) -> Iterator[Path]:
    entries = [client_config.entry(running(name).shell()) for name in dict.fromkeys(machines)]
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        config = Path(folder) / "ssh_config"
        config.write_text("".join(entries), encoding="utf-8")
        yield config


def mount(source: Place, mountpoint: Path) -> None:
    """Show a folder of a machine in a folder of this host, which is made if it doesn't exist.

    Raises NotRunning, ToolMissing, ToolFailed.
    """
    assert source.machine
    if not which("sshfs"):
        raise ToolMissing("sshfs", hint=_SSHFS.get(sys.platform) or packages.hint("sshfs"))
    shell = running(source.machine).shell()
    client_config.write(shell)
    mountpoint.mkdir(parents=True, exist_ok=True)
    # sshfs leaves this folder: its paths must be absolute. It connects again by itself after the host slept.
    named = f"fsname=machine-{source.machine}"
    options: list[str | Path] = ["-F", shell.folder.ssh_config, "-o", "reconnect", "-o", named]
    run(["sshfs", *options, str(source), mountpoint.absolute()], timeout=60)


def unmount(mountpoint: Path) -> None:
    """Raises ToolMissing, ToolFailed."""
    tool = which("fusermount3", "fusermount")
    run([tool, "-u", mountpoint] if tool else ["umount", mountpoint], timeout=60)

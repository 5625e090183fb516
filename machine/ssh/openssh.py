"""OpenSSH's client: its command line, and what its exit code and its log tell.

The user's ~/.ssh/config isn't read, as with docker-machine: a `Host *` with a ProxyJump, a RemoteCommand or a
ControlMaster would break what must always work; options for one call are passed as extra.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from machine.errors import SSHFailed, WaitTimeout
from machine.paths import MachineFolder
from machine.run import Completed, which
from machine.run import run as run_tool
from machine.spec import Address
from machine.ssh import openssh_log
from machine.ssh.failure import broken, ended_by_signal, failed, key_changed, says_key_changed, timed_out
from machine.ssh.limits import ALIVE_INTERVAL, ALIVE_TIMEOUT, CONNECT_TIMEOUT, NO_CONNECTION

_OWN_CONNECTION = {"ControlMaster": "no", "ControlPath": "none"}
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": str(CONNECT_TIMEOUT),
    "GlobalKnownHostsFile": "none",
    "HostKeyAlgorithms": "ssh-ed25519",
    "IdentitiesOnly": "yes",
    "LogLevel": "ERROR",
    "PreferredAuthentications": "publickey",
    "ServerAliveCountMax": str(ALIVE_TIMEOUT // ALIVE_INTERVAL),
    "ServerAliveInterval": str(ALIVE_INTERVAL),
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
}


def argv(
    folder: MachineFolder,
    address: Address,
    user: str,
    command: Sequence[str] = (),
    *,
    tty: bool | None = None,
    extra: Sequence[str] = (),
    log: Path | None = None,
) -> list[str]:
    """The command line of OpenSSH. tty: force one, or none; None leaves it to ssh. extra: more options of ssh.

    log: a file for what ssh itself has to say, so that stderr is the command's.
    """
    # The first value that ssh is given counts.
    logged = ["-E", str(log), "-o", f"LogLevel={openssh_log.LEVEL}"] if log else []
    words = [which("ssh") or "ssh", *logged, *options(folder), *extra]
    words += {True: ["-t"], False: ["-T"], None: []}[tty]
    # "--", because ssh takes options after the host too: a command may begin with a dash.
    return [*words, "-p", str(address.ssh_port), "-l", user, "--", address.host, *command]


def options(folder: MachineFolder) -> list[str]:
    """What ssh, scp and sftp need to reach the machine, beside user, host and port."""
    found = _OWN_CONNECTION | settings(folder)
    return ["-F", "none", *(word for key, value in found.items() for word in ("-o", f"{key}={value}"))]


def settings(folder: MachineFolder) -> dict[str, str]:
    """The same as keywords of ssh_config(5), for a file that is the user's too: connections may be shared there."""
    return _OPTIONS | {"UserKnownHostsFile": _path(folder.known_hosts), "IdentityFile": _path(folder.ssh_key)}


def run(
    folder: MachineFolder, address: Address, user: str, command: Sequence[str], *, input: bytes | None, timeout: float
) -> Completed:
    with tempfile.TemporaryDirectory(prefix="machine-") as scratch:
        place = Path(scratch) / "log"
        words = argv(folder, address, user, command, tty=False, log=place)
        try:
            done = run_tool(words, input=input, timeout=timeout, check=False)
        except WaitTimeout as error:
            if openssh_log.read(place).let_in:
                raise timed_out(folder, address, command, timeout) from error
            raise failed(folder, address, f"no answer in time ({timeout:.0f} s)") from error
        log = openssh_log.read(place)
    if done.code < 0:
        raise broken(folder, address, command, f"ssh itself was ended by signal {-done.code}")
    if done.code == NO_CONNECTION and not log.has_status:
        raise _why(folder, address, command, log, done.stderr)
    return done


def _why(
    folder: MachineFolder, address: Address, command: Sequence[str], log: openssh_log.Log, printed: str
) -> SSHFailed:
    if log.has_signal:
        return ended_by_signal(folder, address, command)
    if log.let_in and not log.is_refused:
        return broken(folder, address, command, log.errors or printed or "no exit status came")
    # ssh complains about an unknown option on stderr, because it has no log yet.
    said = log.errors or printed
    return key_changed(folder, address, said) if says_key_changed(said) else failed(folder, address, said)


def _path(path: Path) -> str:
    """A path as ssh's option parser takes it: in quotes for its blanks, and % doubled, which begins a token.

    Forward slashes also on Windows, where ssh takes a backslash for an escape.
    """
    text = path.as_posix().replace("%", "%%")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

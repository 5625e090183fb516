"""The way into a machine: OpenSSH where there is one, else paramiko (also with MACHINE_NATIVE_SSH=true).

The user's ~/.ssh/config isn't read, as with docker-machine: a `Host *` with a ProxyJump, a RemoteCommand or a
ControlMaster would break what must always work; options for one call are passed as extra. The host's key was made by us
and is pinned, so it is always checked and nothing is ever asked. As with ssh itself, the words of a command are
joined with blanks and parsed by the machine's shell: quote twice what must be quoted there.
"""

from __future__ import annotations

import shlex
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from machine import openssh_log, paths
from machine.errors import HostKeyChanged, SSHFailed, ToolFailed, Usage, WaitTimeout
from machine.paths import Home
from machine.run import Completed, stream, which
from machine.run import run as run_tool
from machine.spec import Address
from machine.ssh_errors import broken, ended_by_signal, failed, key_changed, says_key_changed, timed_out
from machine.switches import is_on

NATIVE_VARIABLE = "MACHINE_NATIVE_SSH"
CONNECT_TIMEOUT = 10
# Seconds between two questions to a silent server, and until the connection counts as dead.
ALIVE_INTERVAL = 15
ALIVE_TIMEOUT = 45
# ssh's own exit code for "no connection"; a command that ends with 255 can't be told from it.
NO_CONNECTION = 255
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
    home: Home,
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
    words = [which("ssh") or "ssh", *logged, *options(home), *extra]
    words += {True: ["-t"], False: ["-T"], None: []}[tty]
    # "--", because ssh takes options after the host too: a command may begin with a dash.
    return [*words, "-p", str(address.ssh_port), "-l", user, "--", address.host, *command]


def options(home: Home) -> list[str]:
    """What ssh, scp and sftp need to reach the machine, beside user, host and port."""
    found = _OWN_CONNECTION | settings(home)
    return ["-F", "none", *(word for key, value in found.items() for word in ("-o", f"{key}={value}"))]


def settings(home: Home) -> dict[str, str]:
    """The same as keywords of ssh_config(5), for a file that is the user's too: connections may be shared there."""
    return _OPTIONS | {"UserKnownHostsFile": _path(home.known_hosts), "IdentityFile": _path(home.ssh_key)}


def run(
    home: Home,
    address: Address,
    user: str,
    command: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float = 60,
    check: bool = True,
) -> Completed:
    """Run a command in the machine and return what it printed. timeout in seconds, for all of it.

    Raises SSHFailed when there is no connection or it breaks, SSHTimeout, ToolFailed when check is true and the command
    ends with an error.
    """
    if native():
        from machine import native_ssh

        done = native_ssh.run(home, address, user, command, input=input, timeout=timeout)
    else:
        done = _run_openssh(home, address, user, command, input=input, timeout=timeout)
    if check and done.code != 0:
        raise ToolFailed(command, done.code, done.stderr or done.stdout)
    return done


def _run_openssh(
    home: Home, address: Address, user: str, command: Sequence[str], *, input: bytes | None, timeout: float
) -> Completed:
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        place = Path(folder) / "log"
        words = argv(home, address, user, command, tty=False, log=place)
        try:
            done = run_tool(words, input=input, timeout=timeout, check=False)
        except WaitTimeout as error:
            if openssh_log.read(place).let_in:
                raise timed_out(home, address, command, timeout) from error
            raise failed(home, address, f"no answer in time ({timeout:.0f} s)") from error
        log = openssh_log.read(place)
    if done.code < 0:
        raise broken(home, address, command, f"ssh itself was ended by signal {-done.code}")
    if done.code == NO_CONNECTION and not log.has_status:
        raise _why(home, address, command, log, done.stderr)
    return done


def _why(home: Home, address: Address, command: Sequence[str], log: openssh_log.Log, printed: str) -> SSHFailed:
    if log.has_signal:
        return ended_by_signal(home, address, command)
    if log.let_in and not log.is_refused:
        return broken(home, address, command, log.errors or printed or "no exit status came")
    # ssh complains about an unknown option on stderr, because it has no log yet.
    said = log.errors or printed
    return key_changed(home, address, said) if says_key_changed(said) else failed(home, address, said)


def interactive(
    home: Home,
    address: Address,
    user: str,
    command: Sequence[str] = (),
    *,
    tty: bool | None = None,
    extra: Sequence[str] = (),
) -> int:
    """A session on our own terminal; returns the command's exit code, 255 when there was no connection."""
    if not native():
        return stream(argv(home, address, user, command, tty=tty, extra=extra)).code
    if extra:
        raise Usage(
            f"{shlex.join(extra)}: options of ssh need OpenSSH", hint=f"install OpenSSH, and unset {NATIVE_VARIABLE}"
        )
    from machine import native_ssh

    return native_ssh.interactive(home, address, user, command, tty=tty)


def ready(home: Home, address: Address, user: str, timeout: float = CONNECT_TIMEOUT, *, expected: bool = False) -> bool:
    """Whether the machine lets us in: cheap while nothing answers, then a real login. timeout in seconds.

    expected: its server is up by all signs, so the login is tried at once.

    Raises SSHFailed when the host's key isn't the pinned one: waiting won't mend that.
    """
    if not expected and not banner(address, timeout):
        return False
    try:
        return run(home, address, user, ["true"], timeout=timeout + CONNECT_TIMEOUT, check=False).code == 0
    except HostKeyChanged:
        raise
    except SSHFailed:
        return False


def banner(address: Address, timeout: float) -> bool:
    """Whether an SSH server says so itself: a user-mode forward takes connections before the guest is up."""
    try:
        with socket.create_connection((address.host, address.ssh_port), timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except (OSError, UnicodeError):  # UnicodeError: a name that no name server can have
        return False


def native() -> bool:
    """Whether paramiko is to be used."""
    return is_on(NATIVE_VARIABLE) or not _openssh_works()


def _openssh_works() -> bool:
    """ssh refuses to work for a user without an entry in the system's list, as in a container run under a number."""
    return which("ssh") is not None and paths.has_account()


def _path(path: Path) -> str:
    """A path as ssh's option parser takes it: in quotes for its blanks, and % doubled, which begins a token.

    Forward slashes also on Windows, where ssh takes a backslash for an escape.
    """
    text = path.as_posix().replace("%", "%%")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

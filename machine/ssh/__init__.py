"""The way into a machine: by OpenSSH where there is one, else by paramiko (also with MACHINE_NATIVE_SSH=true).

The host's key was made by us and is pinned, so it is always checked and nothing is ever asked. As with ssh itself, the
words of a command are joined with blanks and parsed by the machine's shell: quote twice what must be quoted there.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence

from machine import paths
from machine.errors import HostKeyChanged, SSHFailed, ToolFailed, Usage
from machine.paths import MachineFolder
from machine.run import Completed, stream, which
from machine.spec import Address
from machine.ssh import openssh
from machine.ssh.limits import CONNECT_TIMEOUT, NO_CONNECTION
from machine.switches import is_on

__all__ = ["CONNECT_TIMEOUT", "NATIVE_VARIABLE", "NO_CONNECTION", "banner", "interactive", "is_native", "ready", "run"]

NATIVE_VARIABLE = "MACHINE_NATIVE_SSH"


def run(
    folder: MachineFolder,
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
    if is_native():
        from machine.ssh import native

        done = native.run(folder, address, user, command, input=input, timeout=timeout)
    else:
        done = openssh.run(folder, address, user, command, input=input, timeout=timeout)
    if check and done.code != 0:
        raise ToolFailed(command, done.code, done.stderr or done.stdout)
    return done


def interactive(
    folder: MachineFolder,
    address: Address,
    user: str,
    command: Sequence[str] = (),
    *,
    tty: bool | None = None,
    extra: Sequence[str] = (),
) -> int:
    """A session on our own terminal; returns the command's exit code, 255 when there was no connection."""
    if not is_native():
        return stream(openssh.argv(folder, address, user, command, tty=tty, extra=extra)).code
    if extra:
        raise Usage(
            f"{shlex.join(extra)}: options of ssh need OpenSSH", hint=f"install OpenSSH, and unset {NATIVE_VARIABLE}"
        )
    from machine.ssh import native

    return native.interactive(folder, address, user, command, tty=tty)


def ready(
    folder: MachineFolder, address: Address, user: str, timeout: float = CONNECT_TIMEOUT, *, expected: bool = False
) -> bool:
    """Whether the machine lets us in: cheap while nothing answers, then a real login. timeout in seconds.

    expected: its server is up by all signs, so the login is tried at once.

    Raises SSHFailed when the host's key isn't the pinned one: waiting won't mend that.
    """
    if not expected and not banner(address, timeout):
        return False
    try:
        return run(folder, address, user, ["true"], timeout=timeout + CONNECT_TIMEOUT, check=False).code == 0
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


def is_native() -> bool:
    """Whether paramiko is to be used."""
    return is_on(NATIVE_VARIABLE) or not _openssh_works()


def _openssh_works() -> bool:
    """ssh refuses to work for a user without an entry in the system's list, as in a container run under a number."""
    return which("ssh") is not None and paths.has_account()

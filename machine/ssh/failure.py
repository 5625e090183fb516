"""What is said when SSH fails, from the words of OpenSSH and of paramiko."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from machine.errors import HostKeyChanged, SSHFailed, SSHTimeout
from machine.paths import MachineFolder
from machine.spec import Address

# What OpenSSH says when the server has another key than the pinned one.
_CHANGED = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "host key is known for")
# Each cause with the words that tell it; the first that fits counts, so what is more particular stands above.
_CAUSES = (
    ("nothing listens there", ("Connection refused", "Unable to connect to port")),
    ("it can't be reached", ("No route to host", "unreachable", "Could not resolve", "not known")),
    ("it closed the connection", ("saw EOF", "transport shut down", "closed by", "reset by", "Broken pipe")),
    ("it doesn't answer in time", ("timed out", "imeout", "No existing session", "not responding", "in time")),
    ("it doesn't take the machine's key", ("Permission denied", "Authentication failed", "authentication methods")),
    ("it has no algorithm that is accepted here", ("Unable to negotiate", "Incompatible ssh", "no acceptable")),
    ("it opens no session", ("open failed", "prohibited", "Connect failed", "channel type", "Resource shortage")),
    ("it runs no command", ("request failed", "Channel closed")),
    ("the keys of the machine's folder can't be read", ("private key", "Load key", "No such file", "InvalidHostKey")),
    ("it doesn't speak SSH as it should", ("banner", "Indecipherable", "acket", "rotocol", "orrupted", "nvalid")),
    ("it closed the connection", ("closed", "EOF", "dropped")),
)


def says_key_changed(log: str) -> bool:
    """Whether OpenSSH refused the server's key; log is what it wrote."""
    return any(sign in log for sign in _CHANGED)


def key_changed(folder: MachineFolder, address: Address, reason: str) -> HostKeyChanged:
    """The error for a server with another key than the pinned one; reason is what ssh or paramiko said."""
    place = _place(address)
    return HostKeyChanged(
        f"what answers on {place} isn't the machine {folder.name}: it has another host key",
        hint=f"see what else listens on {place}; if the machine itself was changed: machine rm {folder.name}",
        details=reason,
    )


def failed(folder: MachineFolder, address: Address, reason: str) -> SSHFailed:
    """The error for a connection that wasn't made; reason is what ssh or paramiko said."""
    place = _place(address)
    cause = _cause(reason)
    return SSHFailed(
        f"no SSH connection to {place}" + (f": {cause}" if cause else ""),
        hint=f"machine status {folder.name}",
        details=reason,
    )


def broken(folder: MachineFolder, address: Address, command: Sequence[str], reason: str) -> SSHFailed:
    """The error for a command that has no exit status; reason as above, or empty."""
    cause = "the connection broke" if reason else "the connection broke, or a signal ended it"
    return SSHFailed(
        f'"{_short(command)}" on {_place(address)} ended without an exit status: {cause}',
        hint=f"machine status {folder.name}",
        details=reason,
    )


def ended_by_signal(folder: MachineFolder, address: Address, command: Sequence[str]) -> SSHFailed:
    return SSHFailed(f'a signal ended "{_short(command)}" on {_place(address)}', hint=f"machine logs {folder.name}")


def timed_out(folder: MachineFolder, address: Address, command: Sequence[str], timeout: float) -> SSHTimeout:
    return SSHTimeout(f'"{_short(command)}" on {_place(address)} to end', timeout, hint=f"machine status {folder.name}")


def _cause(reason: str) -> str:
    return next((cause for cause, signs in _CAUSES if any(sign in reason for sign in signs)), "")


def _place(address: Address) -> str:
    return f"{address.host}:{address.ssh_port}"


def _short(command: Sequence[str]) -> str:
    return textwrap.shorten(" ".join(command) or "the shell", 60, placeholder="…")

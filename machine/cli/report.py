"""How an error looks: one line, its details, and what to do next; or an object for machines."""

from __future__ import annotations

import sys

from machine.errors import MachineError
from machine.switches import is_on

# What the commands in our hints begin with.
PROGRAMS = frozenset(
    [
        *("VBoxManage", "apt", "apt-get", "brew", "chmod", "chown", "dnf", "docker", "docker-machine", "eval"),
        *("export", "kill", "ls", "lsof", "machine", "modprobe", "mv", "pacman", "pip", "pipx", "ps", "rm"),
        *("ssh-keygen", "sysctl", "systemctl", "virsh", "winget", "zypper"),
    ]
)


def report(error: MachineError, *, name: str = "", as_json: bool = False) -> None:
    """Print the error to stderr. name: the machine it happened to, where there are several."""
    if is_on("MACHINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if as_json:
        import json

        found = {"machine": name, "error": error.message, "details": error.details, "hint": error.hint}
        print(json.dumps({**found, "code": error.exit_code}), file=sys.stderr)
        return
    from machine.guest.console import clean

    message = clean(error.message)
    print(f"Error: {name}: {message}" if name else f"Error: {message}", file=sys.stderr)
    for line in clean(error.details).splitlines():
        print(f"  {line}", file=sys.stderr)
    if error.hint:
        print(labelled(error.hint), file=sys.stderr)


def warn(text: str, hint: str, *, as_json: bool = False) -> None:
    """Print a warning on stderr: something that doesn't fail this command."""
    if as_json:
        import json

        print(json.dumps({"warning": text, "hint": hint}), file=sys.stderr)
        return
    print(f"warning: {text}", file=sys.stderr)
    if hint:
        print(labelled(hint), file=sys.stderr)


def labelled(hint: str) -> str:
    """`Next: ` and a command that can be typed as it is; `Hint: ` and advice in words."""
    program = hint.removeprefix("sudo ").partition(" ")[0]
    return f"{'Next' if program in PROGRAMS else 'Hint'}: {hint}"


def explained(error: Exception) -> MachineError:
    """The error as a MachineError: a full disk, a folder without permission; others are faults of the program."""
    from machine import ownership

    if isinstance(error, OSError):
        return ownership.explained(error)
    import shlex

    again = " ".join(["machine --debug", *(shlex.quote(word) for word in sys.argv[1:])])
    text = f"this is a bug in machine, please report it: {type(error).__name__}: {error}"
    known = MachineError(text, hint=again)
    known.__cause__ = error
    return known


def json_asked() -> bool:
    """Whether to print an error as JSON."""
    return typed("--json")


def typed(*options: str) -> bool:
    """Whether one of the options was typed, except as a word of `machine ssh NAME COMMAND`."""
    words = sys.argv[1:]
    ours = words[: words.index("ssh")] if "ssh" in words else words
    return any(option in ours for option in options)

"""Entries of /etc/hosts and kernel settings on an existing host, which has others of its own."""

from __future__ import annotations

from machine import settings
from machine.errors import MachineError, ToolFailed
from machine.guest.steps import Steps
from machine.spec import Machine
from machine.ssh.remote import Remote

HOSTS = "/etc/hosts"
# Read at boot, after those of the distribution.
SYSCTLS = "/etc/sysctl.d/99-machine.conf"
# Lines KEY=VALUE with the kernel's earlier values.
BEFORE = "/var/lib/machine/sysctl.before"
_BEGIN, _END = "# machine: begin\n", "# machine: end\n"


def settle(remote: Remote, machine: Machine, steps: Steps) -> None:
    """Apply the machine's entries and settings, now and at each boot; changes only what differs. Raises
    MachineError."""
    _hosts(remote, settings.hosts(machine), steps)
    _sysctls(remote, settings.sysctls(machine), steps, machine.name)


def refused(name: str, error: ToolFailed) -> MachineError:
    """The error for a setting that the kernel of the machine name refuses; error is sysctl's."""
    words = [line for line in error.stderr.splitlines() if line.strip()] or [error.message]
    return MachineError(
        f"the kernel refuses the setting: {words[-1].removeprefix('sysctl: ')}",
        hint=f"machine ssh {name} sudo sysctl -a",
        details=error.details,
    )


def _hosts(remote: Remote, wanted: str, steps: Steps) -> None:
    text = remote.read(HOSTS) or ""
    before, begin, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2] if begin else ""
    if before and not before.endswith("\n"):
        before += "\n"
    block = f"{_BEGIN}{wanted}{_END}" if wanted else ""
    if (begin or wanted) and (changed := f"{before}{block}{after}") != text:
        remote.write(HOSTS, changed)
        steps.did(f"wrote {HOSTS}")


def _sysctls(remote: Remote, wanted: str, steps: Steps, name: str) -> None:
    if (remote.read(SYSCTLS) or "") == wanted:
        return
    before = _pairs(remote.read(BEFORE) or "")
    now = _pairs(wanted)
    for key in now.keys() - before.keys():
        before[key] = remote.run(["sysctl", "-n", key], check=False).stdout.strip()
    remote.write(BEFORE, _lines(before))
    gone = {key: value for key, value in before.items() if key not in now}
    try:
        for key, value in {**gone, **now}.items():
            remote.run(["sysctl", "-q", "-w", f"{key}={value}"], check=key in now)
    except ToolFailed as error:
        for key, value in {**before, **_pairs(remote.read(SYSCTLS) or "")}.items():
            remote.run(["sysctl", "-q", "-w", f"{key}={value}"], check=False)
        raise refused(name, error) from error
    remote.write(SYSCTLS, wanted)
    remote.write(BEFORE, _lines({key: before[key] for key in now}))
    steps.did(f"wrote {SYSCTLS}")


def _pairs(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def _lines(pairs: dict[str, str]) -> str:
    return "".join(f"{key}={value}\n" for key, value in pairs.items())

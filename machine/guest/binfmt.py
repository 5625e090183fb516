"""Containers of the other processor in a machine: an interpreter, which the guest's kernel starts for their programs.

It is a static QEMU in user mode for the machine's processor, of this host's or of the user's. It lies on the machine's
disk, and the guest tells its kernel of it at each boot (isos/machineos, binfmt).
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

from machine import packages, resources
from machine.driver import Kind
from machine.errors import CheckFailed, DriverFailed, Usage
from machine.images import cache
from machine.instance import Instance, running
from machine.progress import Progress
from machine.reasons import reason

SCRIPT = "/usr/lib/machineos/binfmt"
# Seconds: 3 MB through SSH, and unpacked by an emulated processor.
_DEADLINE = 300.0
# Where distributions put it; Debian 12 and Ubuntu 24.04 have the first name, Debian 13 the second.
_FOLDER = Path("/usr/bin")
# Where this computer's kernel tells its interpreters; Debian's package names them so, too.
_KERNEL = Path("/proc/sys/fs/binfmt_misc")
# Bytes of the ELF header (System V ABI, "ELF Header"), of 64 bits, lowest byte first.
_ELF = b"\x7fELF\x02\x01"
_MACHINES = {"x86_64": 0x3E, "aarch64": 0xB7}
_INTERPRETED = 3


def switch(name: str, wanted: str, progress: Progress) -> str:
    """Let a running machine run containers of the other processor, or no longer; returns what was done, in a sentence.

    wanted: "on", with this host's interpreter; "off"; or the interpreter's file. Raises Usage, CheckFailed, NotRunning
    and what SSH raises.
    """
    instance = running(name)
    other = _other(instance.architecture)
    if wanted == "on" and instance.driver.kind is Kind.CONTAINER and _host_runs(other):
        return f"Containers for {other} run: this computer's kernel has an interpreter for them."
    _check(instance)
    shell = instance.shell()
    if shell.run(["test", "-x", SCRIPT], check=False).code != 0:
        raise DriverFailed(
            f'the image of the machine "{name}" is of an earlier version, without --binfmt',
            hint=f"machine iso build && machine upgrade {name}",
        )
    if wanted == "off":
        shell.run([SCRIPT, "drop"])
        return f"Containers for {other} run no longer."
    program = _interpreter(instance.architecture, None if wanted == "on" else Path(wanted))
    progress.phase(f"sending {program.name}, which runs programs for {other}")
    shell.run([SCRIPT, "add"], input=gzip.compress(program.read_bytes()), timeout=_DEADLINE)
    return f"Containers for {other} run: docker run --platform linux/{'arm64' if other == 'aarch64' else 'amd64'}"


def _check(instance: Instance) -> None:
    driver, image = instance.driver, instance.machine.image
    if driver.kind is Kind.CONTAINER:
        raise CheckFailed(
            "a system container has this computer's kernel, and --binfmt would set up all of this computer",
            hint=f"for containers of the other processor, install it here: {packages.hint('qemu-user-static')}",
        )
    if driver.kind is not Kind.VM or cache.is_cloud_image(image):
        raise Usage(
            "--binfmt works with machineos only",
            hint=f"machine ssh {instance.name} sudo apt-get install -y qemu-user-static",
        )


def _host_runs(other: str) -> bool:
    """Whether this computer's kernel starts an interpreter for them that containers needn't have (the flag F)."""
    try:
        lines = (_KERNEL / f"qemu-{other}").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return "enabled" in lines and any(line.startswith("flags:") and "F" in line[6:] for line in lines)


def _other(architecture: str) -> str:
    return next(one for one in resources.ARCHITECTURES if one != architecture)


def _interpreter(architecture: str, given: Path | None) -> Path:
    """The program that runs on this processor and runs those of the other one. Raises CheckFailed."""
    other = _other(architecture)
    if given:
        if why := _why_not(given, architecture):
            raise CheckFailed(
                f"{given} can't run programs for {other} in the machine: {why}",
                hint=f"give qemu-{other}-static of Debian's package qemu-user-static for {architecture}",
            )
        return given
    for name in (f"qemu-{other}-static", f"qemu-{other}"):
        if not _why_not(_FOLDER / name, architecture):
            return _FOLDER / name
    file = f"give its file, qemu-{other}-static of Debian's package qemu-user-static for {architecture}: --binfmt FILE"
    is_here = architecture == resources.architecture() and packages.command("qemu-user-static")
    raise CheckFailed(
        f"this computer has no static QEMU that runs programs for {other} on {architecture}",
        details=file if is_here else "",
        hint=packages.hint("qemu-user-static") if is_here else file,
    )


def _why_not(path: Path, architecture: str) -> str:
    """Why that file can't be an interpreter in a machine with this processor, "" when it can."""
    try:
        with path.open("rb") as file:
            header = file.read(64)
            if len(header) < 64 or not header.startswith(_ELF):
                return "it is no program (ELF, 64 bits)"
            if struct.unpack_from("<H", header, 18)[0] != _MACHINES[architecture]:
                return f"it doesn't run on {architecture}"
            (start,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
            file.seek(start)
            table = file.read(size * count)
    except OSError as error:
        return reason(error)
    kinds = [struct.unpack_from("<I", table, at)[0] for at in range(0, len(table) - 3, size or 1)]
    return "it isn't static" if _INTERPRETED in kinds else ""

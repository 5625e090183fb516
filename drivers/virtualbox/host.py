"""Whether this computer can run VirtualBox machines: found out before anything is made."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from machine.errors import CheckFailed, MachineError
from machine.run import Run

from . import explain, hypervisor
from .vboxmanage import INSTALL, VBoxManage

OLDEST = (6, 1, 0)
_NO_VIRTUALIZATION = re.compile(r"^Processor supports HW virtualization:\s*no", re.MULTILINE)
_RUNNING = re.compile(r":\s*4\b")


def check_version(vboxmanage: VBoxManage) -> tuple[int, int, int]:
    """Raises CheckFailed when it is older than 6.1, or doesn't work at all."""
    try:
        version = vboxmanage.version()
    except CheckFailed:
        raise
    except MachineError as error:
        raise CheckFailed(
            f"VBoxManage doesn't work: {error.message}", hint=error.hint or INSTALL, details=error.details
        ) from error
    if version is None:
        raise CheckFailed("VBoxManage doesn't print its version", hint=INSTALL)
    if version < OLDEST:
        raise CheckFailed(
            f"VirtualBox {'.'.join(map(str, version))} is too old: 6.1 is needed", hint="install a newer VirtualBox"
        )
    return version


def check(vboxmanage: VBoxManage, run: Run, version: tuple[int, int, int], platform: str = sys.platform) -> list[str]:
    """Raises CheckFailed where no machine would start; returns what makes machines slow."""
    _check_driver(run, version, platform)
    if platform == "win32" and (found := hypervisor.find(run)):
        # VirtualBox then asks it to run the machine, and the processor's own virtualization is hidden from VirtualBox.
        return [found.note]
    if _NO_VIRTUALIZATION.search(vboxmanage("list", "hostinfo")):
        raise CheckFailed(
            "this computer offers no hardware virtualization (VT-x, AMD-V), or it is switched off",
            hint="switch Intel VT-x or AMD SVM on in the BIOS or UEFI set-up; to try nevertheless: "
            "--virtualbox-no-vtx-check",
        )
    return []


def _check_driver(run: Run, version: tuple[int, int, int], platform: str) -> None:
    if platform == "linux" and not Path("/dev/vboxdrv").exists():
        raise CheckFailed(
            explain.NO_DRIVER,
            hint="try: sudo modprobe vboxdrv || sudo /sbin/vboxconfig, or on Debian: sudo apt install virtualbox-dkms",
        )
    if platform == "darwin" and version < (7, 0, 0) and not Path("/dev/vboxdrv").exists():
        # 7.0 has no kernel extension on macOS any more.
        raise CheckFailed(
            explain.NO_DRIVER, hint="allow Oracle's extension in System Settings, Privacy & Security, and restart"
        )
    if platform == "win32" and not any(_service_runs(run, name) for name in ("vboxsup", "vboxdrv")):
        raise CheckFailed(explain.NO_DRIVER, hint="as administrator: sc start vboxsup, or install VirtualBox again")


def _service_runs(run: Run, name: str) -> bool:
    """`sc query` translates all but the number of the state: 4 is RUNNING."""
    try:
        done = run(["sc", "query", name], timeout=30, check=False)
    except MachineError:
        return True  # no sc: nothing is known, and startvm will tell
    states = [line for line in done.stdout.splitlines() if _RUNNING.search(line) and "WIN32_EXIT_CODE" not in line]
    return done.code == 0 and bool(states)

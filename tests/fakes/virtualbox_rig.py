"""A real VirtualBox for tests, in a chroot of its own: see "Tests" in docs/virtualbox.md for what its folder holds.

Virtual machines really start there, though without VirtualBox's kernel module: their processor is interpreted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

FOLDER_VARIABLE = "MACHINE_TEST_VIRTUALBOX"
SCRIPTS = Path(os.environ.get(FOLDER_VARIABLE) or Path(__file__).parents[2].parent / "shared" / "virtualbox")
INSTALL_DEADLINE = 600
# VBoxSVC ends by itself about 5 s after its last client.
LINGERING = 30


@dataclass(frozen=True)
class Rig:
    """share: the folder below which everything must lie that VirtualBox is to see. guest: a tiny Linux and its key."""

    share: Path
    guest: Path = SCRIPTS / "guest"

    def __call__(self, *words: str | Path) -> str:
        """Run VBoxManage."""
        return subprocess.run(
            [SCRIPTS / "VBoxManage", *words], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    def info(self, uuid: str) -> str:
        """What `showvminfo` says of a machine. For a moment, while a process of its ends, VBoxManage may fail."""
        deadline = time.monotonic() + LINGERING
        while True:
            try:
                return self("showvminfo", uuid, "--machinereadable")
            except subprocess.CalledProcessError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(error.stderr) from error
                time.sleep(0.5)

    def leftovers(self) -> list[str]:
        """What VirtualBox knows of: virtual machines, disks and CDs."""
        return [line for kind in ("vms", "hdds", "dvds") for line in self("list", kind).splitlines() if line.strip()]

    def processes(self) -> list[psutil.Process]:
        """Those of this VirtualBox, and of no other."""
        found = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.info["name"].startswith("VBox") and self.is_below(process.environ().get("VBOX_USER_HOME")):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_below(self, path: str | None) -> bool:
        return bool(path) and Path(str(path)).is_relative_to(self.share)


def why_not() -> str:
    """Why there can be no rig here, "" when there can."""
    if not (SCRIPTS / "install.sh").exists():
        return f"no VirtualBox to test with: {SCRIPTS} has no install.sh ({FOLDER_VARIABLE} names another folder)"
    if os.geteuid() != 0:
        return "the VirtualBox to test with needs root: it lives in a chroot"
    missing = [tool for tool in ("mmdebstrap", "gcc", "unshare") if shutil.which(tool) is None]
    return f"the VirtualBox to test with needs {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """VirtualBox with an empty configuration of its own, first on PATH."""
    if reason := why_not():
        pytest.skip(reason)
    share = tmp_path_factory.mktemp("virtualbox")
    subprocess.run([SCRIPTS / "install.sh"], capture_output=True, timeout=INSTALL_DEADLINE, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("VIRTUALBOX_RIG_SHARE", str(share))
        patch.setenv("VBOX_USER_HOME", str(share / "virtualbox"))
        patch.setenv("VBOX_IPC_SOCKETID", f"test-{os.getpid()}-{share.name}")
        made = Rig(share)
        made("setextradata", "global", "VBoxInternal/HM/FallbackToIEM", "1")
        yield made
        _end(made)


def _end(rig: Rig) -> None:
    for process in rig.processes():
        if process.name() == "VBoxHeadless":
            process.kill()
    _, alive = psutil.wait_procs(rig.processes(), timeout=LINGERING)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)

"""What the stand-in keeps from call to call, and the guests on the Linux side."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recorded

FOLDER = Path(os.environ.get("VBOX_USER_HOME") or Path.home() / ".VirtualBox")
ON = {"running", "paused"}
# Seconds.
GUEST_STARTS = 60.0
Vm = dict[str, Any]


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One call at a time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("a+b") as file:
        while not _lock(file.fileno(), take=True):
            time.sleep(0.02)
        try:
            yield
        finally:
            _lock(file.fileno(), take=False)


def _lock(descriptor: int, *, take: bool) -> bool:
    """Whether the first byte of the file could be locked, or freed."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)
        except OSError:
            return False
    return True


def load() -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        state: dict[str, Any] = json.loads((FOLDER / "state.json").read_text(encoding="utf-8"))
        return state
    return {"vms": {}, "disks": {}}


def save(state: dict[str, Any]) -> None:
    new = FOLDER / "state.json.new"
    new.write_text(json.dumps(state, indent=1, ensure_ascii=False), encoding="utf-8")
    new.replace(FOLDER / "state.json")


def unix(path: str | Path) -> str:
    """The Linux name of a Windows path: only Wine knows."""
    translate = ctypes.CDLL("kernel32").wine_get_unix_file_name
    translate.restype = ctypes.c_void_p
    found = translate(ctypes.c_wchar_p(str(path)))
    return os.fsdecode(ctypes.string_at(found)) if found else ""


def guest_runs(pid: int) -> bool:
    return Path(f"Z:/proc/{pid}").exists()


def start_guest(vm: Vm) -> int:
    """Start the guest as a process of Linux, and return its process id there."""
    file = FOLDER / f"guest-{vm['uuid']}.json"
    answer = FOLDER / f"guest-{vm['uuid']}.pid"
    answer.unlink(missing_ok=True)
    file.write_text(json.dumps(_told(vm, answer)), encoding="utf-8")
    program = (Path(__file__).parent / "guest.path").read_text(encoding="utf-8")
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW
    nowhere = subprocess.DEVNULL
    subprocess.Popen(
        ["start", "/unix", program, unix(file)], stdin=nowhere, stdout=nowhere, stderr=nowhere, creationflags=flags
    )
    why = "its guest says nothing"
    deadline = time.monotonic() + GUEST_STARTS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            why = answer.read_text(encoding="utf-8")
            if why.isdigit():
                return int(why)
            break
        time.sleep(0.05)
    vm["state"] = "poweroff"
    raise recorded.Done(recorded.failure(f"The virtual machine '{vm['name']}' has terminated unexpectedly: {why}"))


def _told(vm: Vm, answer: Path) -> dict[str, Any]:
    """What guest.py reads."""
    folder = Path(vm["config"]).parent
    folder.joinpath("Logs").mkdir(exist_ok=True)
    console = vm["console"]
    return {
        "uuid": vm["uuid"],
        "name": vm["name"],
        "isos": [unix(path) for path in vm["media"].values() if path.lower().endswith(".iso")],
        # A file that isn't there yet has no Linux name everywhere; its folder has.
        "console": f"{unix(Path(console).parent)}/{Path(console).name}" if console else "",
        "log": f"{unix(folder)}/Logs/VBox.log",
        "state": unix(FOLDER / "state.json"),
        "pid": f"{unix(FOLDER)}/{answer.name}",
        "boot": float(os.environ.get("VBOX_STANDIN_BOOT", "1")),
    }

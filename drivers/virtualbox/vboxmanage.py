"""VBoxManage, and the only place that knows its quirks.

What was seen with version 7.2: it exits with 0 after some errors, Debian's wrapper writes warnings on stdout before
the answer, a machine that is busy for a moment or a server that is just starting is an error, and the sentence that
tells what is wrong is the first of several.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from machine import files, locks, wait
from machine.driver import Machine, Snapshot, State
from machine.errors import DriverFailed, ToolMissing, WaitTimeout
from machine.run import Completed, Run

from . import explain, parse
from .parse import Info

if TYPE_CHECKING:
    from filelock import FileLock

INSTALL = "install VirtualBox (6.1 or newer) and make sure that VBoxManage is on PATH"
# Seconds. A call takes 20 to 100 ms; what writes memory or disks takes as long as they are large.
TIMEOUT = 120.0
LONG = 1800.0
# How long another command's work on the same virtual machine is waited for, in seconds.
PATIENCE = 20.0
# A call that only reads goes ahead after so many seconds beside one that changes something.
READ_PATIENCE = 2.0
# A machine that is powered off is off within a second, as a rule.
POWER_OFF = 30.0
PAUSE = 0.2

_READS = {"showvminfo", "list", "--version", "getextradata", "guestproperty"}
_ERROR = re.compile(r"^VBoxManage(?:\.exe)?: error: (.*)$", re.MULTILINE)
_CODE = re.compile(r"Details: code (\w+)")
# A session that another command is about to close, and a VBoxSVC that comes or goes at this moment.
_TRANSIENT = re.compile(
    r"object is not ready"
    r"|already locked (?:for|by) a session"
    r"|while it is locked"
    r"|is being (?:locked|unlocked)"
    r"|Failed to create the (?:VirtualBox|session) object"
    # Of a machine that was started a moment ago, on a busy host.
    r"|Failed to save machine state"
    r"|NS_ERROR_CALL_FAILED|NS_ERROR_ABORT|RPC_S_SERVER_UNAVAILABLE"
)


class VBoxFailed(DriverFailed):
    """VBoxManage refused. code is COM's: VBOX_E_OBJECT_NOT_FOUND."""

    def __init__(self, message: str, *, code: str, details: str, hint: str = "") -> None:
        super().__init__(message, details=details, hint=hint)
        self.code = code


def find(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str | None:
    """The path of VBoxManage: on PATH, where the installer says, where it is put by default. None: there is none."""
    program = "VBoxManage.exe" if platform == "win32" else "VBoxManage"
    if on_path := shutil.which(program, path=environ.get("PATH")):
        return on_path
    folders = [environ.get("VBOX_INSTALL_PATH", ""), environ.get("VBOX_MSI_INSTALL_PATH", "")]
    if platform == "win32":
        folders += [
            f"{environ[variable]}/Oracle/VirtualBox"
            for variable in ("ProgramW6432", "ProgramFiles")
            if environ.get(variable)
        ]
    if platform == "darwin":
        folders.append("/Applications/VirtualBox.app/Contents/MacOS")
    return next((str(path) for folder in folders if folder and (path := Path(folder) / program).is_file()), None)


class VBoxManage:
    """One VBoxManage at a time per store. Raises VBoxFailed, ToolMissing, WaitTimeout."""

    def __init__(
        self,
        run: Run,
        store: Path,
        *,
        patience: float = PATIENCE,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.run = run
        self.store = store
        self.patience = patience
        self.say = say

    def __call__(self, *words: str | Path, timeout: float = TIMEOUT, exit_code_counts: bool = False) -> str:
        """Run it and return what it printed on stdout. timeout in seconds.

        exit_code_counts: "error:" on stderr is no failure where the exit code is 0.
        """
        deadline = time.monotonic() + self.patience
        while True:
            done = self._once([str(word) for word in words], timeout)
            if not _failed(done) or (exit_code_counts and done.code == 0):
                return without_warnings(done.stdout)
            if not _TRANSIENT.search(done.stderr) or time.monotonic() > deadline:
                raise failure(done)
            time.sleep(PAUSE)

    def info(self, uuid: str) -> Info | None:
        """None when there is no such virtual machine; a state of ERROR when its settings can't be read."""
        try:
            return Info(parse.machinereadable(self("showvminfo", uuid, "--machinereadable")))
        except VBoxFailed as error:
            if error.code == "VBOX_E_OBJECT_NOT_FOUND":
                return None
            if error.code == "E_ACCESSDENIED":
                return Info({"VMState": "inaccessible"})
            raise

    def existing(self, machine: Machine) -> Info:
        """Raises DriverFailed when there is no such virtual machine."""
        info = self.info(machine.uuid)
        if info is None:
            raise DriverFailed(
                "the machine is no longer registered in VirtualBox",
                hint=f"it was removed in VirtualBox; to remove it here, too: machine rm {machine.name}",
            )
        return info

    def snapshots(self, info: Info) -> list[tuple[str, Snapshot]]:
        """UUID and snapshot, oldest first; of the settings file, because VBoxManage doesn't tell their times."""
        return parse.snapshots(Path(info.config).read_text(encoding="utf-8"))

    def power_off(self, uuid: str, info: Info) -> None:
        """Pull the plug, or drop the saved memory; info is the virtual machine's. It is off when this returns."""
        if info.state is State.STOPPED or info.word == "inaccessible":
            return
        if info.state is State.SAVED:
            self("discardstate", uuid)
            return
        try:
            self("controlvm", uuid, "poweroff")
        except DriverFailed:
            if not self.is_off(uuid):
                # Its process doesn't listen: VirtualBox ends it.
                self("startvm", uuid, "--type", "emergencystop")
        wait.until(lambda: self.is_off(uuid), timeout=POWER_OFF, what="VirtualBox to switch the machine off")

    def is_off(self, uuid: str) -> bool:
        """Whether it is stopped or saved, or isn't there."""
        info = self.info(uuid)
        return info is None or info.state in {State.STOPPED, State.SAVED}

    def version(self) -> tuple[int, int, int] | None:
        return parse.version(self("--version"))

    def machines(self) -> list[str]:
        """The UUIDs of all registered virtual machines, whosever they are."""
        return parse.registered(self("list", "vms"))

    def settings_files(self) -> dict[str, str]:
        """UUID -> path of the settings file, of all registered virtual machines, also of those that can't be read."""
        # Why one can't be read is told on stderr, as an error.
        return parse.settings_files(self("list", "--long", "vms", exit_code_counts=True))

    def media(self, kind: str) -> list[dict[str, str]]:
        """The registered "hdds" or "dvds": UUID, Location, Parent UUID."""
        return [block for block in parse.blocks(self("list", kind)) if "Location" in block]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the store's other commands from VBoxManage for several calls."""
        with self._turn(LONG):
            yield

    def _once(self, words: list[str], timeout: float) -> Completed:
        binary = find()
        if binary is None:
            raise ToolMissing("VBoxManage", hint=INSTALL)
        # A call that only reads goes ahead beside one that doesn't end.
        with self._turn(READ_PATIENCE, must=False) if words[0] in _READS else self._turn(LONG):
            return self.run([binary, *words], timeout=timeout, check=False)

    @contextlib.contextmanager
    def _turn(self, patience: float, *, must: bool = True) -> Iterator[None]:
        """Hold the lock. must: raise WaitTimeout after so many seconds; else go ahead without it."""
        lock = self._lock
        try:
            locks.acquire(lock, what="another command to finish with VirtualBox", timeout=patience, say=self.say)
        except WaitTimeout:
            if must:
                raise
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @property
    def _lock(self) -> FileLock:
        from filelock import FileLock

        # A singleton: the same thread may take it again.
        files.make_folder(self.store)
        return FileLock(self.store / "virtualbox.lock", mode=0o600, is_singleton=True)


def without_warnings(text: str) -> str:
    """stdout without the lines that Debian's wrapper prints first when its kernel module isn't loaded."""
    if not text.startswith("WARNING:"):
        return text
    lines = text.splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if line[0] not in "W\t\n"), len(lines))
    return "".join(lines[first:])


def failure(done: Completed) -> VBoxFailed:
    """What VBoxManage has to say, in words and with a remedy where one is known."""
    told = _ERROR.findall(done.stderr)
    code = _CODE.search(done.stderr)
    last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.code}"]
    message, hint = explain.explain(done.stderr)
    return VBoxFailed(
        message or f"VirtualBox: {told[0] if told else last[0]}",
        code=code[1] if code else "",
        details=f"$ VBoxManage {' '.join(done.argv[1:])}\n{done.stderr.strip()}",
        hint=hint,
    )


def _failed(done: Completed) -> bool:
    # discardstate of a machine that is off, among others, says "error:" and exits with 0; nothing was changed then.
    return done.code != 0 or _ERROR.search(done.stderr) is not None

"""Fixtures for tests of the driver `qemu`: a machine of its own, and stand-ins for QEMU's process and sockets."""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_fixtures import add_image
from machine.drivers.qemu import Qemu, driver, vm
from machine.drivers.qemu.process import Process

from machine import helper, run, wait
from machine import links as core_links
from machine.errors import ToolFailed
from machine.paths import MachineFolder
from machine.run import Completed
from machine.spec import Address, Machine

PRINTED = base64.b64encode(b"204800\n").decode()
QEMU = "/usr/bin/qemu-system-x86_64"


class Recorder:
    """Stands for run(): remembers each command, and fails as told. qemu-img is run when `images` says so.

    launched is called when a QEMU is started: it may bring up what answers on its sockets.
    """

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.error = ""
        self.images = False
        self.version = "QEMU emulator version 8.2.1"
        self.launched: Callable[[list[str]], None] = lambda words: None

    def __call__(self, argv: Sequence[str | Path], **_: object) -> Completed:
        words = [str(word) for word in argv]
        self.ran.append(words)
        if self.error:
            raise ToolFailed(words, 1, self.error)
        if self.images and words[0] == "qemu-img":
            return run.run(argv)
        if words[1:] == ["--version"]:
            return Completed(words, 0, self.version, "")
        if words[0] == QEMU:
            self.launched(words)
        return Completed(words, 0, "", "")

    @property
    def launches(self) -> list[list[str]]:
        return [words for words in self.ran if words[0] == QEMU and "-pidfile" in words]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def folder(store: Path) -> MachineFolder:
    folder = store / "machines" / "dev"
    folder.mkdir(parents=True)
    return MachineFolder(folder)


@pytest.fixture
def qemu(folder: MachineFolder, tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Qemu:
    """The driver of a machine on an x86_64 host with QEMU."""
    digest = add_image(tmp_path, "machineos", b"one").digest
    machine = Machine(
        *("dev", "qemu", "u-u-i-d", "52:54:00:00:00:01", digest, 512, 1, 1024),
        address=Address("127.77.0.2"),
        options={"accelerator": "tcg", "cold": True},
    )
    for module in (driver, vm):
        monkeypatch.setattr(module, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    # It would be kept by the process that runs the tests.
    monkeypatch.setattr(vm, "use_small_pages", lambda: None)
    return Qemu(machine, folder, recorder)


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the links to folders with long paths are made; its own path is short, wherever tests keep their files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(core_links, "PLACE", Path(folder))
        yield Path(folder) / f"machine-{os.getuid()}"


@contextlib.contextmanager
def process(folder: MachineFolder, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that passes for the machine's QEMU; more: words of its command line."""
    words = ["-c", "import time; time.sleep(600)", "-pidfile", str(folder / "qemu.pid"), *more]
    with subprocess.Popen([sys.executable, *words]) as popen, contextlib.ExitStack() as stack:
        stack.callback(popen.kill)
        (folder / "qemu.pid").write_text(str(popen.pid))
        # For a moment a new process has no command line.
        wait.until(Process(folder / "qemu.pid").find, timeout=60, what="the process")
        yield popen


@pytest.fixture
def running(folder: MachineFolder) -> Iterator[subprocess.Popen[bytes]]:
    with process(folder) as popen:
        yield popen


@pytest.fixture(autouse=True)
def detached(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The helpers that were started."""
    started: list[list[str]] = []

    def detach(argv: Sequence[str | Path], **_: object) -> None:
        started.append([str(word) for word in argv])

    monkeypatch.setattr(helper, "detach", detach)
    return started


def guest(message: dict[str, Any], **returned: Any) -> list[Any]:
    """A guest agent's answer: guest(message, exitcode=1) has run a program that ended so, and printed a number."""
    answers = {
        "guest-sync-delimited": message.get("arguments", {}).get("id"),
        "guest-exec": {"pid": 7},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": PRINTED, **returned},
    }
    return [{"return": answers.get(message["execute"], {})}]

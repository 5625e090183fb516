"""Fixtures for tests that make machines with the fake driver, on top of those in conftest.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Unpack

import machine_fake
import pytest

from machine import ssh
from machine import store as stores
from machine.docker import api
from machine.images import cache
from machine.images.cache import ImageInfo
from machine.paths import MachineFolder
from machine.spec import Machine
from tests.fixture_types import Begin, Invoke, Pipes

HERE = Path(__file__).parent
# Seconds: many may be started at once, where others use the processors, too.
DEADLINE = 200


@pytest.fixture
def vms(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with an image, the driver `fake` by default; and the folder in which it keeps its virtual machines."""
    folder = store / "fake"
    folder.mkdir()
    monkeypatch.delenv("FAKE_FAILS", raising=False)
    monkeypatch.setenv("MACHINE_DRIVER", "fake")
    # For processes that are started; in this one:
    monkeypatch.setenv(machine_fake.ANSWERS, "1")
    monkeypatch.setattr(api.Client, "ping", lambda client: machine_fake.pretend(client.folder))
    monkeypatch.setattr(ssh, "ready", lambda folder, *_, **__: machine_fake.pretend(folder))
    add_image(tmp_path, "machineos", b"an operating system")
    return folder


@pytest.fixture
def dev(vms: Path, invoke: Invoke) -> MachineFolder:
    """The folder of the machine `dev`, which was made by the command line and runs."""
    assert invoke("create", "-q", "dev").code == 0
    return stores.folder_of("dev")


def vm_of(folder: MachineFolder) -> Path:
    """The file that is the virtual machine of a machine of the driver `fake`; its text is the state."""
    return folder.store / "fake" / folder.name


def host_of(machine: Machine) -> str:
    """The host in its address, which every machine has once it is made."""
    assert machine.address
    return machine.address.host


def add_image(folder: Path, name: str, content: bytes, created: str = "2024-01-01", recipe: str = "") -> ImageInfo:
    file = folder / "image"
    file.write_bytes(content)
    about = ImageInfo(name, cache.digest(file), "x86_64", "iso", len(content), created, recipe=recipe)
    cache.add(file, about, boot={"kernel": b"k", "initrd": b"i", "cmdline": b"quiet\n"})
    return about


@pytest.fixture
def begin(vms: Path) -> Begin:
    """Start the command line in a process of its own; `ended` waits for it."""

    def begin(*words: str, **pipes: Unpack[Pipes]) -> subprocess.Popen[str]:
        pipes.setdefault("stdin", subprocess.DEVNULL)
        pipes.setdefault("stdout", subprocess.PIPE)
        pipes.setdefault("stderr", subprocess.PIPE)
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        return subprocess.Popen([sys.executable, "-m", "machine", *words], env=environment, text=True, **pipes)

    return begin


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, and what the process printed on stdout and stderr."""
    with process:
        try:
            out, err = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err

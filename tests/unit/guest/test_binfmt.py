"""Containers of the other processor: which interpreter is sent to a machine, and which machines get one."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from machine import packages, resources
from machine.driver import Kind
from machine.errors import CheckFailed, DriverFailed, MachineError, Usage
from machine.guest import binfmt
from machine.progress import Silent
from machine.run import Completed

SCRIPT = Path(__file__).parents[3] / "isos/machineos/rootfs/usr/lib/machineos/binfmt"


def program(path: Path, *, machine: int = 0x3E, kinds: Sequence[int] = (1,)) -> Path:
    """An ELF file of 64 bits with segments of these kinds; 3 names the loader of a program that isn't static."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 3, machine)
    header = header.ljust(32, b"\0") + struct.pack("<Q", 64)
    header = header.ljust(54, b"\0") + struct.pack("<HH", 56, len(kinds))
    path.write_bytes(header.ljust(64, b"\0") + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in kinds))
    return path


class Guest:
    """A machine that runs; it remembers what was done in it."""

    def __init__(self, architecture: str = "x86_64", kind: Kind = Kind.VM, *, old: bool = False) -> None:
        self.name, self.architecture, self.old = "dev", architecture, old
        self.driver, self.machine = SimpleNamespace(kind=kind), SimpleNamespace(image="")
        self.ran: list[tuple[list[str], bytes]] = []

    def shell(self) -> Guest:
        return self

    def run(self, argv: list[str], *, input: bytes = b"", check: bool = True, timeout: float = 60) -> Completed:
        self.ran.append((argv, input))
        return Completed(argv, int(self.old), "", "")


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(binfmt, "_FOLDER", tmp_path)
    monkeypatch.setattr(binfmt, "_KERNEL", tmp_path)
    monkeypatch.setattr(resources, "architecture", lambda: "x86_64")
    monkeypatch.setattr(packages, "manager", lambda: "apt-get")

    def switch(wanted: str, guest: Guest) -> str:
        monkeypatch.setattr(binfmt, "running", lambda name: guest)
        return binfmt.switch("dev", wanted, Silent())

    return switch


@pytest.mark.parametrize("name", ["qemu-aarch64-static", "qemu-aarch64"])
def test_this_hosts_interpreter_is_sent(switch: Any, tmp_path: Path, name: str) -> None:
    sent = program(tmp_path / name)
    guest = Guest()
    assert switch("on", guest) == "Containers for aarch64 run: docker run --platform linux/arm64"
    argv, input = guest.ran[-1]
    assert (argv, gzip.decompress(input)) == ([binfmt.SCRIPT, "add"], sent.read_bytes())


def test_off(switch: Any) -> None:
    guest = Guest()
    assert switch("off", guest) == "Containers for aarch64 run no longer."
    assert guest.ran[-1] == ([binfmt.SCRIPT, "drop"], b"")


def test_a_file_for_a_machine_with_other_processors_than_this_host(switch: Any, tmp_path: Path) -> None:
    program(tmp_path / "qemu-x86_64-static")  # runs here, not there
    with pytest.raises(CheckFailed, match="no static QEMU that runs programs for x86_64 on aarch64") as caught:
        switch("on", Guest("aarch64"))
    assert "give its file, qemu-x86_64-static" in caught.value.hint
    theirs = program(tmp_path / "theirs", machine=0xB7)
    assert switch(str(theirs), Guest("aarch64")).endswith("linux/amd64")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b"#!/bin/sh\n" * 20), "no program"),
        (lambda path: path.write_bytes(b"\x7fELF\x02\x01"), "no program"),
        (lambda path: program(path, machine=0xB7), "doesn't run on x86_64"),
        (lambda path: program(path, kinds=(1, 3)), "isn't static"),
    ],
)
def test_a_file_that_is_none(switch: Any, tmp_path: Path, make: Any, why: str) -> None:
    make(tmp_path / "given")
    guest = Guest()
    with pytest.raises(CheckFailed, match=why):
        switch(str(tmp_path / "given"), guest)
    assert [argv for argv, _ in guest.ran] == [["test", "-x", binfmt.SCRIPT]]


def test_a_host_without_one(switch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "qemu-aarch64", kinds=(3,))
    with pytest.raises(CheckFailed) as caught:
        switch("on", Guest())
    assert caught.value.hint.endswith("apt-get install -y qemu-user-static")
    assert "--binfmt FILE" in caught.value.details
    monkeypatch.setattr(packages, "manager", lambda: "brew")
    with pytest.raises(CheckFailed) as caught:
        switch("on", Guest())
    assert "--binfmt FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("guest", "kind", "word"),
    [
        (Guest(kind=Kind.CONTAINER), CheckFailed, "this computer's kernel"),
        (Guest(kind=Kind.HOST), Usage, "machineos only"),
        (Guest(old=True), DriverFailed, "earlier version"),
    ],
)
def test_machines_that_get_none(switch: Any, guest: Guest, kind: type[MachineError], word: str) -> None:
    with pytest.raises(kind, match=word):
        switch("off", guest)


@pytest.mark.parametrize(
    ("told", "runs"),
    [
        ("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n", True),
        ("disabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n", False),
        ("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: \noffset 0\n", False),
    ],
)
def test_a_system_container_on_a_host_that_runs_them(
    switch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, runs: bool
) -> None:
    (tmp_path / "qemu-aarch64").write_text(told)
    guest = Guest(kind=Kind.CONTAINER)
    if runs:
        assert "this computer's kernel has an interpreter" in switch("on", guest)
    else:
        with pytest.raises(CheckFailed):
            switch("on", guest)
    with pytest.raises(CheckFailed):
        switch("off", guest)
    assert guest.ran == []


@pytest.mark.skipif(not shutil.which("gzip"), reason="needs gzip")
@pytest.mark.parametrize(("here", "other", "number"), [("x86_64", "aarch64", 0xB7), ("aarch64", "x86_64", 0x3E)])
def test_what_the_guest_tells_its_kernel(tmp_path: Path, here: str, other: str, number: int) -> None:
    kernel = tmp_path / "binfmt_misc"
    kernel.mkdir()
    (kernel / "register").touch()
    text = SCRIPT.read_text(encoding="utf-8").replace(". /usr/lib/machineos/lib.sh\n", f"DATA={tmp_path}\n")
    text = text.replace("/proc/sys/fs/binfmt_misc", str(kernel)).replace("$(uname -m)", here)

    def run(*words: str, input: bytes = b"") -> None:
        subprocess.run(["sh", "-c", text, "binfmt", *words], input=input, check=True)

    run()
    assert (kernel / "register").read_text() == ""  # nothing was asked for
    run("add", input=gzip.compress(b"an interpreter"))
    kept = tmp_path / f"machine/binfmt/qemu-{other}"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"an interpreter", 0o755)
    empty, name, kind, offset, magic, mask, interpreter, flags = (kernel / "register").read_text().split(":")
    assert (empty, name, kind, offset, interpreter, flags) == ("", f"qemu-{other}", "M", "", str(kept), "CF")
    header, wanted = (bytes.fromhex(text.replace("\\x", "").replace("ELF", "454c46")) for text in (mask, magic))
    assert (len(header), len(wanted)) == (20, 20)
    for program_kind in (2, 3):
        began = b"\x7fELF\x02\x01\x01\x03".ljust(16, b"\0") + struct.pack("<HH", program_kind, number)
        assert bytes(a & b for a, b in zip(began, header, strict=True)) == wanted
    theirs = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, 0xF3)
    assert bytes(a & b for a, b in zip(theirs, header, strict=True)) != wanted
    (kernel / "register").write_text("")
    run()
    assert (kernel / "register").read_text().startswith(f":qemu-{other}:")
    (kernel / f"qemu-{other}").touch()
    run("drop")
    assert ((kernel / f"qemu-{other}").read_text(), kept.exists()) == ("-1\n", False)

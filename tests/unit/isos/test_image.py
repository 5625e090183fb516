import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine.isos.machineos import build, elf, manifest
from machine.isos.machineos.lists import HERE

from machine.errors import Usage

SCRIPTS = [path for path in sorted(HERE.rglob("*")) if path.is_file() and path.read_bytes().startswith(b"#!")]


def test_the_manifest_is_sorted(tmp_path: Path) -> None:
    made = manifest.Manifest("x86_64", "2025.01.02", "6.12", {"b": "2", "a": "1"}, "0" * 64, 5)
    made.write(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text) == dataclasses.asdict(made)
    assert text.index('"a"') < text.index('"b"')


def test_version_is_the_day_of_the_newest_file() -> None:
    assert build.version_of(1_700_000_000) == "2023.11.14"


def test_console_of_the_command_line_follows_the_architecture() -> None:
    assert "console=ttyS0" in build.cmdline()
    assert "console=ttyAMA0" in build.cmdline("aarch64")


def test_unknown_architecture_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(Usage):
        build.build(tmp_path / "x.iso", arch="mips", say=print)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_sh(script: Path) -> None:
    if not (busybox := shutil.which("busybox")):
        pytest.skip("no busybox here")
    subprocess.run([busybox, "sh", "-n", script], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs an ELF program")
def test_libraries_of_a_program_are_found() -> None:
    names = elf.needed(Path("/bin/sh").resolve())
    assert any(name.startswith(("libc.so", "libc.musl")) for name in names)


def test_what_is_no_elf_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert elf.needed(tmp_path / "script") == []


def test_nobody_has_a_password() -> None:
    fields = [line.split(":") for line in (HERE / "rootfs/etc/shadow").read_text().splitlines()]
    assert {password for _, password, *_ in fields} == {"*"}

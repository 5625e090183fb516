"""Fixtures for tests of templates and clones: a machine that is cloned, and a template that was made in no time."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import Recorder
from machine.drivers.qemu import Qemu, template, template_maker
from machine.drivers.qemu.argv import DISK
from machine.drivers.qemu.template import Template

from machine.paths import Image


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def larger(qemu: Qemu, recorder: Recorder, said: list[str]) -> Qemu:
    """A machine that is cloned, with more memory and disk than its template."""
    recorder.images = True
    Image(qemu.machine.image).clones.touch()
    return another(qemu, said, options={"accelerator": "tcg"}, memory_mib=1024, disk_mib=30 * 1024)


def another(qemu: Qemu, said: list[str], **fields: Any) -> Qemu:
    made = Qemu(replace(qemu.machine, **fields), qemu.folder, qemu.run)
    made.say = said.append
    return made


def make(folder: Path) -> bool:
    (folder / template.MEMORY).write_bytes(b"memory")
    (folder / template.STATE).write_bytes(b"state")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / DISK, "20G"], check=True)
    return True


@pytest.fixture
def origin(larger: Qemu, store: Path) -> Template:
    """The template that `dev` is cloned from."""
    return template.obtain(store, template_maker.recipe_for(larger.vm), make, pytest.fail)

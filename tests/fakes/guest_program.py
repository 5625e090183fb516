"""A C program of the guest, compiled for this host with every warning an error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from machine.isos.machineos import programs

_CHECKS = ("-Werror", "-Wconversion", "-Wshadow", "-fsanitize=undefined")


def compiled(name: str, folder: Path, *libraries: str) -> Path:
    """The program in the folder; skips the test where there is no gcc."""
    if not (gcc := shutil.which("gcc")):
        pytest.skip("no gcc here")
    source, out = programs.SOURCES / f"{name}.c", folder / name
    subprocess.run([gcc, *programs.FLAGS, *_CHECKS, source, "-o", out, *libraries], check=True)
    return out

"""Programs in C that tests run in a machine, in any container: they need no library of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCES = Path(__file__).parent / "guest"
_FLAGS = ("-std=gnu17", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow")


def compiled(name: str, folder: Path) -> Path:
    """The program guest/NAME.c in the folder."""
    out = folder / name
    subprocess.run(["gcc", *_FLAGS, _SOURCES / f"{name}.c", "-o", out], check=True)
    return out

"""The *.list files beside this module: one entry a line, # starts a comment."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent


def entries(name: str) -> list[str]:
    """The lines of a list, without comments and blank lines."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in (line.split("#")[0].strip() for line in lines) if line]


def words(name: str) -> list[str]:
    """The words of a list of names."""
    return " ".join(entries(name)).split()


def packages(arch: str) -> list[str]:
    """The Debian packages for an architecture (x86_64, aarch64)."""
    chosen = []
    for line in entries("packages.list"):
        package, _, limit = line.partition("[")
        if limit in ("", f"{arch}]"):
            chosen.append(package.strip())
    return chosen


def is_kept(path: str, patterns: list[str]) -> bool:
    """Whether a path is kept: the last pattern that matches decides; "!" in front of it excludes."""
    kept = False
    for pattern in patterns:
        if fnmatchcase(path, pattern.removeprefix("!")):
            kept = not pattern.startswith("!")
    return kept

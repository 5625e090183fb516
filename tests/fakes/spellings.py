"""Other ways to write the path of a folder that is there, each as one of users came about."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Spell = Callable[[Path], str]


def home_is_a_link(folder: Path) -> str:
    link = folder.parent / "link"
    link.symlink_to(folder.parent)
    return f"{link}/{folder.name}"


def folder_is_a_link(folder: Path) -> str:
    link = folder.parent / "elsewhere"
    link.symlink_to(folder)
    return str(link)


def with_dots(folder: Path) -> str:
    """As `-s ../x/.machine` gives it in a folder beside."""
    (folder.parent / "beside").mkdir()
    return f"{folder.parent}/beside/../{folder.name}"


def with_slashes(folder: Path) -> str:
    return f"{folder.parent}//{folder.name}/./"


def relative(folder: Path) -> str:
    return os.path.relpath(folder)


def in_capitals(folder: Path) -> str:
    """A link stands for a file system that ignores case: there, too, both names have one inode."""
    capitals = folder.with_name(folder.name.upper())
    capitals.symlink_to(folder)
    return str(capitals)


ALL = [
    pytest.param(spell, id=spell.__name__)
    for spell in (home_is_a_link, folder_is_a_link, with_dots, with_slashes, relative, in_capitals)
]

"""A part of tests/unit on a Windows Python. tests/not_on_windows.py says what can't run there, and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.windows.install import ROOT
from tests.windows.rig import Rig

# What is other on Windows, and quick: text and its line ends, paths, files and locks, processes, shells, VirtualBox.
PART = (
    "tests/unit/virtualbox",
    "tests/unit/test_acl.py",
    "tests/unit/test_config.py",
    "tests/unit/test_files.py",
    "tests/unit/test_paths.py",
    "tests/unit/test_run.py",
    "tests/unit/test_shell_encoding.py",
    "tests/unit/test_shells.py",
    "tests/unit/test_store.py",
)
# Seconds.
DEADLINE = 1200.0
pytestmark = pytest.mark.timeout(DEADLINE + 1000)


@pytest.fixture
def checkout(rig: Rig) -> Path:
    """The tests on drive C:, without the program, which is the one that is installed."""
    folder = rig.prefix / "drive_c" / "checkout"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_unit_tests(rig: Rig, checkout: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--timeout", "120", "--tb", "short")
    ended = rig.python("-P", "-m", "pytest", *PART, *options, cwd=checkout, code=None, timeout=DEADLINE)
    assert ended.code == 0, str(ended)[-30_000:]
    print(ended.out[-10_000:])

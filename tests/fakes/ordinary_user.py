"""The command line run by an ordinary user, where the tests themselves are run by root."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypedDict

import pytest

from tests.conftest import FAKES
from tests.fixture_types import Ordinary, Outcome

# Of nobody: a user without an entry in /etc/passwd, as in a container that is run under a number.
USER = 54321
DEADLINE = 200
# In front of what the system has of the same packages.
_SETUP = "import site, sys; sys.path.insert(1, {packages!r}); site.addsitedir({packages!r}); "
_MAIN = _SETUP + "from machine.cli import main; main()"


@cache
def _interpreter() -> str | None:
    """A Python that the user can run with our packages: root's own may lie in a folder that is closed to others."""
    script = _SETUP.format(packages=_packages()) + "import click, cryptography, filelock, psutil"
    for python in filter(None, (sys.executable, shutil.which("python3", path="/usr/bin"))):
        words = [python, "-c", script]
        try:
            if not subprocess.run(words, **_IDENTITY, capture_output=True, check=False).returncode:
                return python
        except OSError:
            continue
    return None


def _packages() -> str:
    return sysconfig.get_path("purelib") if site.ENABLE_USER_SITE is not None else ""


class _Identity(TypedDict):
    user: int
    group: int
    extra_groups: list[int]
    cwd: str


_IDENTITY = _Identity(user=USER, group=USER, extra_groups=[], cwd="/")


@pytest.fixture
def user_home() -> Iterator[Path]:
    """The home folder of the ordinary user; with a store in it that is his, too."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    # Not pytest's folder, which only root can enter.
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    home = folder / "home"
    for path in (home, home / ".machine", home / ".machine" / "machines"):
        path.mkdir(mode=0o700)
        os.chown(path, USER, USER)
    yield home
    shutil.rmtree(folder)


@pytest.fixture
def ordinary(user_home: Path) -> Ordinary:
    """Run the command line as a user who isn't root: ordinary("ls", HOME="/nowhere")."""
    if (python := _interpreter()) is None:
        pytest.skip("no Python here that another user can run")

    def call(*words: str | Path, **environment: str | None) -> Outcome:
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FAKES), "HOME": str(user_home), "SHELL": "/bin/sh"}
        known = {key: value for key, value in {**base, **environment}.items() if value is not None}
        done = subprocess.run(
            [python, "-c", _MAIN.format(packages=_packages()), *map(str, words)],
            env=known,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            **_IDENTITY,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


def give(*paths: Path, uid: int = USER) -> None:
    """Make the paths, and all that lies in them, the user's."""
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, uid, uid)

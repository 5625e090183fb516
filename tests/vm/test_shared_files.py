"""What programs do to files, in a shared folder of this computer: call by call, and at random."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import guest_programs
from tests.vm.conftest import Docker
from tests.vm.full import FULL

# Seconds of random reads and writes.
STRESS = 600 if FULL else 10


@pytest.fixture(scope="module")
def programs(host_folder: Path) -> Path:
    """The folder of these programs, for all users."""
    folder = host_folder / "programs"
    folder.mkdir()
    for name in ("posix", "stress"):
        guest_programs.compiled(name, folder)
    return folder


@pytest.mark.parametrize("user", ["0:0", pytest.param("1234:567", marks=pytest.mark.slow)])
def test_each_call_does_what_posix_says(docker: Docker, programs: Path, user: str) -> None:
    """But for what docs/folders.md lists."""
    (programs / user).mkdir()
    words = ("--rm", "--user", user, "-v", f"{programs}:/src", "-w", f"/src/{user}", "busybox")
    done = docker("run", *words, "/src/posix", "/dev/shm", code=None, timeout=500)
    assert done.code == 0, done.out
    assert not list((programs / user).iterdir()), "what it made is gone on the host, too"


@pytest.mark.timeout(STRESS + 300)
def test_random_reads_and_writes_find_what_was_written(docker: Docker, programs: Path) -> None:
    words = ("--rm", "-v", f"{programs}:/src", "-w", "/src", "busybox", "/src/stress", str(STRESS))
    done = docker("run", *words, code=None, timeout=STRESS + 240)
    assert done.code == 0, done.out

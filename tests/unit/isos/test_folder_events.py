"""The guest's program that repeats changes, compiled for this host: outside of a shared folder it does nothing.

What it does in one is tested with a machine (tests/vm/test_watchers.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import guest_program
import pytest

from machine.folders import mount_spec, player

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is the guest's, and the guest is Linux")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guest_program.compiled("folder-events", tmp_path_factory.mktemp("events"))


def run(program: Path, *words: str, records: tuple[bytes, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    data = b"".join(record + b"\0" for record in records)
    return subprocess.run([program, *words], input=data, capture_output=True, timeout=120, check=False)


def test_the_image_has_it_where_it_is_looked_for(program: Path) -> None:
    assert Path(player.PROGRAM).name == program.name


def test_it_must_be_told_who_it_is(program: Path) -> None:
    assert (run(program).returncode, run(program, "0").returncode) == (2, 2)
    if os.geteuid():
        assert run(program, str(mount_spec.REPLAY_UID)).returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root, to be another user")
def test_it_changes_nothing_in_a_folder_that_isnt_shared(program: Path, tmp_path: Path) -> None:
    """Where nothing is mounted, the folder is the machine's own."""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    (tmp_path / "file").write_text("text")
    (tmp_path / "file").chmod(0o666)
    (tmp_path / "sub").mkdir()
    before = (tmp_path / "file").stat()
    records = [
        *(b"%s %s" % (kind, os.fsencode(tmp_path / name)) for kind in (b"M", b"C1", b"D") for name in ("file", "new")),
        *(b"%s %s" % (kind, os.fsencode(tmp_path / name)) for kind in (b"K1", b"R") for name in ("sub", "new")),
        *(b"M", b"M ", b"M /", b"Mx", b"M /" + b"x" * 5000, b"? /x/y", b""),
    ]
    done = run(program, str(mount_spec.REPLAY_UID), records=(*records, b"M /none/file", b""))
    assert (done.stdout, done.stderr, done.returncode) == (b"..", b"", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "sub"]
    assert (tmp_path / "file").stat() == before

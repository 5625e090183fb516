"""The unpacked root: real copies, of a folder in place of a mounted image."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from machine.drivers.lxc import mounts, roots

from machine.run import run


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the image holds, and a file system that shows other owners."""
    folder = tmp_path / "mounted"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/tool").write_text("a tool")
    (folder / "bin/sh").symlink_to("tool")
    (tmp_path / "image").mkdir()
    monkeypatch.setattr(mounts, "try_to_adorn", lambda folder, ids: None)
    return folder


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_root_is_unpacked_where_only_its_owner_enters(mounted: Path, tmp_path: Path) -> None:
    target = tmp_path / "image/unpacked/root"
    roots.unpack(mounted, target, None, run)
    assert (target / "bin/tool").read_text() == "a tool"
    assert (target / "bin/sh").is_symlink()
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert names(tmp_path / "image") == ["unpacked"]


def test_a_killed_unpacking_is_begun_anew(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "image/.unpacked/root/old").mkdir(parents=True)
    roots.unpack(mounted, tmp_path / "image/unpacked/root", None, run)
    assert names(tmp_path / "image/unpacked/root") == ["bin"]


def refused(folder: Path, ids: object) -> None:
    raise OSError(22, "mount_setattr")


@pytest.mark.parametrize("lack", ["room", "owners", "turn", "files"])
def test_where_it_cannot_be_used_nothing_is_left(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    if lack == "room":
        monkeypatch.setattr(roots, "ROOM", shutil.disk_usage(tmp_path).total + 1)
    if lack == "owners":
        monkeypatch.setattr(mounts, "try_to_adorn", refused)
    if lack == "files":
        shutil.rmtree(mounted)
    turn = os.open(tmp_path / "image", os.O_RDONLY)
    try:
        if lack == "turn":
            fcntl.flock(turn, fcntl.LOCK_EX)
        roots.unpack(mounted, tmp_path / "image/unpacked/root", None, run)
    finally:
        os.close(turn)
    assert names(tmp_path / "image") == []


def test_what_another_user_could_have_put_there_is_not_used(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "image/unpacked/root"
    roots.unpack(mounted, target, None, run)
    assert roots.is_there(target)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not roots.is_there(target)
    shutil.rmtree(target.parent)
    roots.unpack(mounted, target, None, run)
    assert names(tmp_path / "image") == []

"""machine scp and mount, against a real SSH server."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from machine import packages, transfer
from machine.errors import ToolMissing
from machine.transfer import Place
from tests.fixture_types import Add, Invoke, Made

rsync = pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync")
sshfs = pytest.mark.skipif(
    not (shutil.which("sshfs") and os.access("/dev/fuse", os.R_OK | os.W_OK)), reason="needs sshfs and FUSE"
)


@pytest.mark.parametrize(
    ("text", "platform", "place"),
    [
        ("a", "linux", Place("a")),
        ("dev:/a b", "linux", Place("/a b", "dev")),
        ("me@dev:a:b", "linux", Place("a:b", "dev", "me")),
        ("dev:", "linux", Place("", "dev")),
        ("localhost:/a", "linux", Place("/a")),
        ("localhost:", "linux", Place(".")),
        ("./a:b", "linux", Place("./a:b")),
        ("C:\\a", "win32", Place("C:\\a")),
        ("C:\\a", "linux", Place("\\a", "C")),
    ],
)
def test_place(text: str, platform: str, place: Place) -> None:
    assert transfer.place(text, platform=platform) == place


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A folder here with a tree in it, and an empty one that stands for the machine's."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "tree" / "sub").mkdir(parents=True)
    there.mkdir()
    (here / "a b").write_text("one")
    (here / "tree" / "sub" / "file").write_text("two")
    return here, there


@pytest.mark.parametrize("delta", [[], pytest.param(["--delta"], marks=rsync)], ids=["scp", "rsync"])
def test_to_and_from_a_machine(invoke: Invoke, reachable: Made, folders: tuple[Path, Path], delta: list[str]) -> None:
    here, there = folders
    reachable()
    assert invoke("scp", "-q", *delta, here / "a b", f"default:{there}/x").code == 0
    assert (there / "x").read_text() == "one"
    assert invoke("scp", "-q", "-r", *delta, here / "tree", f"default:{there}").code == 0
    assert (there / "tree" / "sub" / "file").read_text() == "two"
    assert invoke("scp", *delta, f"default:{there}/x", f"localhost:{here}/back").code == 0
    assert (here / "back").read_text() == "one"


def test_a_folder_needs_recursive(invoke: Invoke, reachable: Made, folders: tuple[Path, Path]) -> None:
    here, there = folders
    reachable()
    assert invoke("scp", "-q", here / "tree", f"default:{there}").code != 0
    assert list(there.iterdir()) == []


def test_from_machine_to_machine_each_with_a_key_of_its_own(
    invoke: Invoke, reachable: Made, folders: tuple[Path, Path]
) -> None:
    here, there = folders
    reachable("one")
    reachable("two")
    assert invoke("scp", "-q", f"one:{here}/a b", f"two:{there}/x").code == 0
    assert (there / "x").read_text() == "one"
    ended = invoke("scp", "--delta", "one:a", "two:b")
    assert (ended.code, "leave out --delta" in ended.err) == (2, True)


def test_a_relative_name_with_a_dash_or_a_colon_is_a_name(
    invoke: Invoke, reachable: Made, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = folders
    reachable()
    monkeypatch.chdir(here)
    for name in ("-r", "a:b"):
        Path(name).write_text(name, encoding="utf-8")
    assert invoke("scp", "-q", "--", "-r", f"default:{there}/dash").code == 0
    assert invoke("scp", "-q", "./a:b", f"default:{there}/colon").code == 0
    assert ((there / "dash").read_text(), (there / "colon").read_text()) == ("-r", "a:b")


def test_the_pin_is_checked(invoke: Invoke, reachable: Made, folders: tuple[Path, Path]) -> None:
    reachable().known_hosts.write_text("")
    assert invoke("scp", "-q", folders[0] / "a b", f"default:{folders[1]}").code != 0


def test_what_cannot_be(invoke: Invoke, add: Add) -> None:
    add()
    assert invoke("scp", "a", "b").code == 2
    assert invoke("scp", "a", "absent:b").code == 1
    assert "machine start default" in invoke("scp", "a", "default:b").err
    assert "machine start default" in invoke("mount", "/x").err


@sshfs
def test_mount(invoke: Invoke, reachable: Made, folders: tuple[Path, Path], tmp_path: Path) -> None:
    here, _ = folders
    reachable()
    point = tmp_path / "point"
    ended = invoke("mount", f"default:{here}", point)
    assert ended.code == 0, ended.err
    try:
        assert (point / "a b").read_text() == "one"
        (point / "new").write_text("three")
        assert (here / "new").read_text() == "three"
    finally:
        assert invoke("mount", "-u", f"default:{here}", point).code == 0
    assert list(point.iterdir()) == []
    assert invoke("mount", "-u", point).code == 1


@pytest.mark.parametrize("tool", ["scp", "rsync", "sshfs"])
def test_a_tool_that_is_missing(
    invoke: Invoke, reachable: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str
) -> None:
    reachable()
    monkeypatch.setenv("PATH", str(tmp_path))
    words = {"scp": ["scp", "a", "default:"], "rsync": ["scp", "-d", "a", "default:"], "sshfs": ["mount", "/a", "b"]}
    ended = invoke(*words[tool])
    assert ended.code == 3
    assert f"{tool} was not found" in ended.err


@pytest.mark.parametrize(
    ("platform", "hint"),
    [("linux", "install -y sshfs"), ("darwin", "macFUSE"), ("win32", "machine scp")],
)
def test_how_to_get_sshfs_is_told_for_this_system(platform: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "which", lambda *_: None)
    monkeypatch.setattr(packages, "which", lambda tool: tool if tool == "apt-get" else None)
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ToolMissing) as caught:
        transfer.mount(Place("/home", "default"), Path("/mnt"))
    assert hint in caught.value.hint

"""Sockets in a home with a long path."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import spellings
from machine.drivers.qemu import sockets

from machine import links as core
from machine.errors import CheckFailed


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    return folder


def home_of(length: int) -> Path:
    return Path("/" + "x" * (length - 1))


def test_a_short_path_stays_as_it_is(links: Path) -> None:
    longest = home_of(core.SOCKET_ROOM - len("/resume.sock"))
    assert sockets.way(longest) == longest
    assert sockets.reach(longest / "qmp.sock") == longest / "qmp.sock"
    assert not links.exists()
    assert sockets.way(longest / "x").parent == links


def test_a_socket_is_reached_through_the_link(far: Path, links: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError, match="too long"):
            server.bind(str(far / "qmp.sock"))
        server.bind(str(sockets.way(far) / "qmp.sock"))
        server.listen()
        client.connect(str(sockets.reach(far / "qmp.sock")))
    assert links.stat().st_mode & 0o777 == 0o700


def test_each_home_has_a_link_of_its_own_that_is_made_again(far: Path, links: Path) -> None:
    first, second = sockets.way(far), sockets.way(far / "other")
    assert first != second
    assert first.readlink() == far
    first.unlink()
    second.unlink()
    second.symlink_to("/elsewhere")
    assert sockets.way(far).readlink() == far
    assert sockets.way(far / "other").readlink() == far / "other"
    assert {path.name for path in links.iterdir()} == {first.name, second.name}
    core.forget(far)
    assert list(links.iterdir()) == [second]
    core.forget(far / "other")
    core.forget(far / "other")
    assert not links.exists()


def test_a_link_that_cant_be_made(far: Path, links: Path) -> None:
    links.mkdir(mode=0o700)
    sockets.way(far)
    (link,) = links.iterdir()
    link.unlink()
    (link / "in the way").mkdir(parents=True)
    with pytest.raises(CheckFailed, match=f"{link} can't be made: Is a directory"):
        sockets.reach(far / "qmp.sock")
    assert list(links.iterdir()) == [link]


def test_a_folder_that_others_can_change_is_not_used(far: Path, links: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    links.symlink_to(tmp_path / "theirs")
    with pytest.raises(CheckFailed, match="isn't a folder of yours"):
        sockets.way(far)
    links.unlink()
    links.mkdir()
    links.chmod(0o770)
    with pytest.raises(CheckFailed):
        sockets.check(far)
    assert list(links.iterdir()) == []


def test_nor_one_that_somebody_makes_at_that_moment(far: Path, links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = core._make

    def make_late(link: Path, home: Path) -> None:
        links.mkdir()
        links.chmod(0o777)
        make(link, home)

    monkeypatch.setattr(core, "_make", make_late)
    with pytest.raises(CheckFailed, match="isn't a folder of yours"):
        sockets.way(far)


@pytest.mark.parametrize("spelling", spellings.ALL)
def test_one_link_for_all_spellings(far: Path, links: Path, spelling: spellings.Spell) -> None:
    other = Path(spelling(far)).absolute()
    link = sockets.way(far)
    assert sockets.way(other) in {link, other}, "a short spelling needs none"
    link.rename(links / "of an earlier version")
    core.forget(other)
    assert not links.exists()

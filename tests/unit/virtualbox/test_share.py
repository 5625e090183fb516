from pathlib import Path

import pytest
from fake_vboxmanage import UUID
from machine.drivers.virtualbox import VirtualBox, share
from machine.drivers.virtualbox.options import Options
from machine.drivers.virtualbox.share import Share, guest_path

from machine.errors import CheckFailed
from machine.guest.seed import Mount
from tests.unit.virtualbox.conftest import Make


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("/home/ann", "/home/ann"),
        ("/Users/Ann Lee", "/Users/Ann Lee"),
        (r"C:\Users\Ann Lee", "/c/Users/Ann Lee"),
        ("D:/work", "/d/work"),
        ("E:\\", "/e"),
    ],
)
def test_the_same_path_in_the_guest(folder: str, path: str) -> None:
    assert guest_path(folder) == path


def test_the_home_folder_is_shared() -> None:
    assert share.share_of(Options(), Path("/home/ann")) == Share("/home/ann", "/home/ann")
    assert share.share_of(Options(no_share=True), Path("/home/ann")) is None


@pytest.mark.parametrize("home", ["/root", "/home/docker", "/"])
def test_what_is_the_guests_own_isnt_hidden(home: str) -> None:
    assert share.share_of(Options(), Path(home)) is None


def test_another_folder(tmp_path: Path) -> None:
    assert share.share_of(Options(share_folder=str(tmp_path))) == Share(str(tmp_path), str(tmp_path))
    assert share.share_of(Options(share_folder=f"{tmp_path}:hosthome")) == Share(str(tmp_path), "/hosthome")
    assert share.share_of(Options(share_folder=f"{tmp_path}:/mnt/host")) == Share(str(tmp_path), "/mnt/host")


@pytest.mark.parametrize(
    ("typed", "folder", "path"),
    [
        (r"C:\Users:c/Users", r"C:\Users", "/c/Users"),  # docker-machine's default there
        (r"C:\Users", r"C:\Users", "/c/Users"),
    ],
)
def test_a_drive_isnt_taken_for_a_path_in_the_machine(
    monkeypatch: pytest.MonkeyPatch, typed: str, folder: str, path: str
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    assert share.share_of(Options(share_folder=typed)) == Share(folder, path)


def test_a_folder_that_cant_be_shared(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="there is no folder"):
        share.check(Options(share_folder=str(tmp_path / "nothing")))
    with pytest.raises(CheckFailed, match="/etc is a folder that the machine needs itself"):
        share.check(Options(share_folder=f"{tmp_path}:/etc"))


def test_on_arm_nothing_is_shared_and_that_is_said(tmp_path: Path) -> None:
    """Else the guest would wait for a file system that its kernel doesn't have."""
    assert share.share_of(Options(), Path("/home/ann"), arm=True) is None
    assert share.share_of(Options(share_folder=str(tmp_path)), arm=True) is None
    [note] = share.check(Options(), arm=True)
    assert note.startswith("your home folder isn't shared: a VirtualBox machine can't mount folders on ARM")
    assert share.check(Options(no_share=True), arm=True) == []
    with pytest.raises(CheckFailed, match="can't mount folders on ARM"):
        share.check(Options(share_folder=str(tmp_path)), arm=True)


def test_the_guest_mounts_it_for_its_user() -> None:
    assert Share("/home/ann", "/home/ann").mount == Mount("home", "/home/ann", "vboxsf", "uid=1000,gid=1000")


def test_the_calls(make: Make) -> None:
    driver = make()
    assert isinstance(driver, VirtualBox)
    assert driver.mounts() == ()
    assert share.words(driver.machine, Share("/home/ann", "/home/ann")) == [
        ["sharedfolder", "add", UUID, "--name", "home", "--hostpath", "/home/ann"],
        ["setextradata", UUID, "VBoxInternal2/SharedFoldersEnableSymlinksCreate/home", "1"],
    ]

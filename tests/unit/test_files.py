import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from machine import acl, files
from machine.errors import ToolFailed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_mode_is_the_one_asked_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write(tmp_path / "key", "secret")
        files.write(tmp_path / "cert", b"public", 0o644)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "key"), mode(tmp_path / "cert")) == (0o600, 0o644)


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    files.write(tmp_path / "file", "ü\r\n\n")
    assert (tmp_path / "file").read_bytes() == "ü\r\n\n".encode()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    files.write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("machine.json", "old")]


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    seen: list[bool] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(path.exists()), sync(descriptor)))
    files.write(path, "data")
    # First the file, not yet under its name; then the folder.
    assert seen == [False, True]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "victim").read_text() == "keep"
    assert not (tmp_path / "link").is_symlink()


def test_folders_above_are_private_too(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "store" / "machines" / "dev")
    assert [mode(tmp_path / name) for name in ("store", "store/machines", "store/machines/dev")] == [0o700] * 3
    tmp_path.chmod(0o755)
    files.make_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "store")


def test_a_file_that_another_program_has_open_is_written_into(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    files.write(path, b"old")
    with path.open("rb") as reader:
        files.overwrite(path, b"new")
        assert reader.read() == b"new"
    files.overwrite(path, b"longer")
    assert path.read_bytes() == b"longer"
    files.overwrite(tmp_path / "other", b"made")
    assert (tmp_path / "other").read_bytes() == b"made"
    assert mode(tmp_path / "other") == 0o600


def test_removed_files_stay_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "_sync_folder", synced.append)
    (tmp_path / "there").touch()
    files.remove(tmp_path / "there", tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
    assert synced == [tmp_path]
    files.remove(tmp_path / "absent")
    assert synced == [tmp_path]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


def busy(times: int, action: Callable[[], object]) -> Callable[..., object]:
    """Refuses so often, as Windows does while somebody has the file open."""
    left = [times]

    def act(*_: object) -> object:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "it is being used by another process")
        return action()

    return act


def test_on_windows_a_busy_file_is_tried_again(tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "read_bytes", busy(3, lambda: b"text"))
    assert files.read_text(path) == "text"
    replaced: list[str] = []
    monkeypatch.setattr(Path, "replace", busy(3, lambda: replaced.append("once")))
    files.write(path, "new")
    assert replaced == ["once"]


def test_on_windows_a_file_that_stays_busy_is_an_error(
    tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    monkeypatch.setattr(Path, "replace", busy(1000, lambda: None))
    with pytest.raises(PermissionError):
        files.write(tmp_path / "machine.json", "new")
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_file_that_may_not_be_read_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "read_bytes", busy(1, lambda: b"text"))
    with pytest.raises(PermissionError):
        files.read_text(tmp_path / "machine.json")


def test_a_file_is_set_aside(tmp_path: Path) -> None:
    files.set_aside(tmp_path / "console.log", "console.log.1")
    for content in ("first", "second"):
        (tmp_path / "console.log").write_text(content, encoding="utf-8")
        files.set_aside(tmp_path / "console.log", "console.log.1")
        assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [
            ("console.log.1", content)
        ]


def test_on_windows_a_file_that_somebody_reads_keeps_its_name(
    tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    (tmp_path / "console.log").write_bytes(b"read by logs -f")
    monkeypatch.setattr(Path, "replace", busy(1000, lambda: None))
    files.set_aside(tmp_path / "console.log", "console.log.1")
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


def test_on_windows_each_new_folder_is_given_to_the_user(
    tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a mode, by which Python makes an entry that ssh.exe refuses keys for."""
    given: list[Path] = []
    monkeypatch.setattr(acl, "make_private", given.append)
    made: list[dict[str, object]] = []
    mkdir = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: (made.append(options), mkdir(path, **options)))
    files.make_folder(tmp_path / "machines" / "dev")
    files.make_folder(tmp_path / "machines" / "dev")
    files.make_folder(tmp_path / "shared", 0o755)
    assert given == [tmp_path / "machines", tmp_path / "machines" / "dev"]
    assert made == [{"exist_ok": True}] * 3


def test_on_windows_a_file_system_without_rights_will_do(
    tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise ToolFailed(["icacls", str(folder)], 1, "The parameter is incorrect.")

    monkeypatch.setattr(acl, "make_private", refuse)
    files.make_folder(tmp_path / "dev")
    assert (tmp_path / "dev").is_dir()

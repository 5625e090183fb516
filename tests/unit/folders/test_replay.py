"""Calls that only repeat what the host did: they change nothing, reach nothing new, and show what the guest had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nfs_client import UNSET, Client, NfsError, Served, Set, attributes

from machine.folders import mount_spec, nfs3, xdr
from machine.folders.replay import FILE_BEFORE, FOLDER_BEFORE, FOLDERS, NOW
from tests.unit.folders.conftest import Share

FILE, FOLDER = 1, 2


@pytest.fixture
def again(share: Share) -> Callable[[int], Client]:
    """The guest's program, in one of its four groups."""

    def client(mode: int) -> Client:
        return Client(share.client.connection, mount_spec.REPLAY_UID, mount_spec.REPLAY_UID + mode, share.client.xids)

    return client


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that calls could change."""
    return {
        str(path.relative_to(folder)): (
            (found := path.lstat()).st_mode,
            found.st_mtime_ns,
            found.st_ctime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def test_nothing_changes_on_the_host(share: Share, again: Callable[[int], Client]) -> None:
    (share.host / "file").write_text("text")
    (share.host / "sub").mkdir()
    (share.host / "sub/inner").write_text("inner")
    before = snapshot(share.host)
    for mode in (FOLDERS, NOW, FILE_BEFORE, FOLDER_BEFORE):
        client = again(mode)
        file = client.walk(share.top, "file")
        client.setattr(file, Set(mode=0o600, size=0, modified="now"))
        assert client.write(file, b"other", stable=nfs3.FILE_SYNC)[0] == 5
        client.commit(file)
        client.create(share.top, b"file", Set(size=0))
        client.create_exclusively(share.top, b"file", bytes(8))
        client.remove(share.top, b"file")
        client.rmdir(share.top, b"sub")
        client.rename(share.top, b"file", share.top, b"elsewhere")
        client.link(file, share.top, b"second")
        client.symlink(share.top, b"sub", b"/etc")
        client.mkdir(share.top, b"sub")
        if mode != NOW:
            client.create(share.top, b"none")
            client.mkdir(share.top, b"none")
        with pytest.raises(NfsError):
            client.mknod(share.top, b"pipe")
        assert snapshot(share.host) == before


def test_what_is_made_is_what_is_there(share: Share, again: Callable[[int], Client]) -> None:
    (share.host / "file").write_text("text")
    (share.host / "sub").mkdir()
    assert again(FILE_BEFORE).create(share.top, b"file") == share.client.walk(share.top, "file")
    assert again(FOLDER_BEFORE).mkdir(share.top, b"sub") == share.client.walk(share.top, "sub")
    (share.host / "link").symlink_to("file")
    handle = again(FILE_BEFORE).create(share.top, b"link")
    assert share.client.getattr(handle).type == 5


def test_what_was_removed_is_there_once_more(share: Share, again: Callable[[int], Client]) -> None:
    """By its old handle, by which the guest's programs watch it; for others it is gone."""
    (share.host / "sub").mkdir()
    (share.host / "sub/file").write_text("text")
    sub = share.client.walk(share.top, "sub")
    file = share.client.walk(sub, "file")
    fileid = share.client.getattr(file).fileid
    (share.host / "sub/file").unlink()
    (share.host / "sub").rmdir()
    assert again(FOLDERS).walk(share.top, "sub") == sub
    found, seen = again(FILE_BEFORE).lookup(sub, b"file")
    assert (found, seen.type, seen.fileid) == (file, FILE, fileid)
    assert again(FILE_BEFORE).getattr(file).changed == (0, 0)
    assert again(FILE_BEFORE).access(sub, 0x3F) == 0x3F
    again(FILE_BEFORE).remove(sub, b"file")
    assert again(FOLDER_BEFORE).lookup(share.top, b"sub")[1].type == FOLDER
    again(FOLDER_BEFORE).rmdir(share.top, b"sub")
    for handle in (sub, file):
        with pytest.raises(NfsError, match=str(nfs3.STALE)):
            share.client.getattr(handle)
    with pytest.raises(NfsError, match=r"status 2$"):
        share.client.lookup(share.top, b"sub")


def test_what_was_never_seen_is_made_up(share: Share, again: Callable[[int], Client]) -> None:
    """Of the right kind, the same each time, and nothing for others."""
    folder, seen = again(FOLDERS).lookup(share.top, b"gone")
    assert seen.type == FOLDER
    file, seen = again(FILE_BEFORE).lookup(folder, b"file")
    assert (seen.type, seen.size, seen.changed) == (FILE, 0, (0, 0))
    assert again(FILE_BEFORE).lookup(folder, b"file")[0] == file
    assert again(FOLDERS).getattr(file).type == FILE
    assert again(FILE_BEFORE).getattr(folder).type == FOLDER
    again(FILE_BEFORE).remove(folder, b"file")
    for handle in (folder, file):
        with pytest.raises(NfsError, match=str(nfs3.STALE)):
            share.client.getattr(handle)
        with pytest.raises(NfsError, match=str(nfs3.STALE)):
            again(FILE_BEFORE).read(handle)


def test_the_file_that_was_replaced_goes_first(share: Share, again: Callable[[int], Client]) -> None:
    (share.host / "file").write_text("old")
    old = share.client.walk(share.top, "file")
    (share.host / "new").write_text("new")
    (share.host / "new").rename(share.host / "file")
    assert again(NOW).walk(share.top, "file") != old
    assert again(FILE_BEFORE).walk(share.top, "file") == old
    with pytest.raises(NfsError, match=str(nfs3.STALE)):
        again(NOW).getattr(old)
    again(FILE_BEFORE).remove(share.top, b"file")
    new = again(FILE_BEFORE).create(share.top, b"file")
    assert new == again(FILE_BEFORE).walk(share.top, "file") == share.client.walk(share.top, "file")
    assert share.client.read(new)[0] == b"new"


def test_the_guest_soon_asks_again_for_what_was_removed(share: Share, again: Callable[[int], Client]) -> None:
    """The kernel trusts that a name is free as long as the folder's time of change is the same."""
    reader = again(FILE_BEFORE).nfs(nfs3.REMOVE, xdr.opaque(share.top) + xdr.opaque(b"gone"))
    assert not reader.flag()
    assert reader.flag()
    assert attributes(reader).changed != share.client.getattr(share.top).changed


def test_no_attributes_from_before_are_told(share: Share, again: Callable[[int], Client]) -> None:
    """The kernel would take the host's change for its own, and keep the contents that it has."""
    (share.host / "file").write_text("text")
    file = share.client.walk(share.top, "file")
    reader = again(NOW).nfs(nfs3.SETATTR, xdr.opaque(file) + Set(modified="now").pack() + UNSET)
    assert not reader.flag()


def test_owners_are_told_as_to_who_asked_last(share: Share, again: Callable[[int], Client]) -> None:
    """The kernel has one owner of a file for all: programs of the guest must not see the reserved one."""
    (share.host / "file").write_text("text")
    share.client.uid, share.client.gid = 1234, 99
    share.client.walk(share.top, "file")
    seen = again(NOW).lookup(share.top, b"file")[1]
    assert (seen.uid, seen.gid) == (1234, 99)


def test_what_is_hidden_stays_hidden(home: Path, host: Path) -> None:
    """It is refused alike whether it is there or not, and nothing in it is shown."""
    (host / "keys").mkdir()
    (host / "keys/id").write_text("secret")
    with Served(home, str(host), hidden=(host / "keys", host / "none")) as client:
        top = client.mount(host)
        for mode in (FOLDERS, NOW, FILE_BEFORE, FOLDER_BEFORE):
            rogue = Client(client.connection, mount_spec.REPLAY_UID, mount_spec.REPLAY_UID + mode, client.xids)
            for name in (b"keys", b"none", b"KEYS"):
                for attempt in (rogue.lookup, rogue.create, rogue.mkdir):
                    with pytest.raises(NfsError, match=str(nfs3.ACCES)):
                        attempt(top, name)


def test_nothing_outside_is_reached(share: Share, again: Callable[[int], Client], tmp_path: Path) -> None:
    """A file that the host moved out of the folder: its old handle tells that it was a file, and no more."""
    (share.host / "file").write_text("text")
    file = share.client.walk(share.top, "file")
    (share.host / "file").rename(tmp_path / "file")
    seen = again(FILE_BEFORE).lookup(share.top, b"file")[1]
    assert (seen.size, seen.mode) == (0, 0o666)
    with pytest.raises(NfsError):
        again(FILE_BEFORE).read(file)
    for name in (b".", b".."):
        with pytest.raises(NfsError):
            again(FOLDERS).lookup(share.top, name)


def test_answers_for_others_are_kept(share: Share, again: Callable[[int], Client]) -> None:
    """Two thousand repetitions must not push out the answer to a call of a program's that is asked again."""
    share.client.create(share.top, b"made", how=nfs3.GUARDED, xid=7_000_000)
    for _ in range(1200):
        again(FILE_BEFORE).remove(share.top, b"gone")
    share.client.create(share.top, b"made", how=nfs3.GUARDED, xid=7_000_000)

"""The procedures of RFC 1813, each through a connection, against real files."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nfs_client import NfsError, Served, Set

from machine.folders import nfs3
from machine.folders.attributes import Identity
from machine.folders.export import Export
from tests.unit.folders.conftest import Share

OTHERS = 0o022


def refused(status: int) -> pytest.RaisesExc[NfsError]:
    return pytest.raises(NfsError, match=rf"status {status}$")


def test_attributes_are_the_files(share: Share) -> None:
    file = share.host / "a"
    file.write_bytes(b"x" * 5000)
    file.chmod(0o640)
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    handle, found = share.client.lookup(share.top, b"a")
    assert (found.type, found.mode, found.links, found.size) == (1, 0o640, 1, 5000)
    assert (found.accessed, found.modified, found.fileid) == ((1, 1), (2, 2), file.stat().st_ino)
    assert share.client.getattr(handle) == found


def test_what_the_user_owns_looks_as_if_it_belonged_to_whoever_asks(share: Share) -> None:
    (share.host / "a").touch()
    handle, _ = share.client.lookup(share.top, b"a")
    for who in (0, 1000, 33):
        found = replace(share.client, uid=who, gid=who + 1).getattr(handle)
        assert (found.uid, found.gid) == (who, who + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away: needs root")
def test_files_of_others_are_nobodys(share: Share) -> None:
    (share.host / "a").touch()
    os.chown(share.host / "a", 4242, 4242)
    assert share.client.lookup(share.top, b"a")[1].uid == 65534


def test_attributes_can_be_set(share: Share) -> None:
    file = share.host / "a"
    file.write_bytes(b"12345")
    handle = share.client.walk(share.top, "a")
    share.client.setattr(handle, Set(mode=0o4751, size=2, accessed=(5, 6), modified=(7, 8)))
    found = file.stat()
    # Not the bit by which a program runs as the host's user.
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o751, 2)
    assert (found.st_atime_ns, found.st_mtime_ns) == (5_000_000_006, 7_000_000_008)
    share.client.setattr(handle, Set(modified="now"))
    assert file.stat().st_mtime > 1_000_000_000


def test_an_owner_is_taken_note_of_and_not_set(share: Share) -> None:
    (share.host / "a").touch()
    share.client.setattr(share.client.walk(share.top, "a"), Set(uid=1234))
    assert (share.host / "a").stat().st_uid == os.geteuid()


def test_a_guard_keeps_a_file_that_has_changed(share: Share) -> None:
    (share.host / "a").write_bytes(b"1")
    handle, found = share.client.lookup(share.top, b"a")
    with refused(nfs3.NOT_SYNC):
        share.client.setattr(handle, Set(size=0), guard=(1, 1))
    share.client.setattr(handle, Set(size=0), guard=found.changed)
    assert (share.host / "a").read_bytes() == b""


def test_lookup_finds_names_and_the_folders_own(share: Share) -> None:
    (share.host / "sub").mkdir()
    handle = share.client.walk(share.top, "sub")
    assert share.client.lookup(handle, b".")[0] == handle
    assert share.client.lookup(handle, b"..")[0] == share.top
    with refused(2):
        share.client.lookup(share.top, b"none")


def test_names_in_utf8_and_in_nothing(share: Share) -> None:
    names = ["Grüße.txt", "日本語", "a b\tc", "x" * 255, "'\"$`*"]
    for name in names:
        share.client.create(share.top, name.encode())
    share.client.create(share.top, b"\xff\xfe")
    assert sorted(share.client.names(share.top)) == sorted([*(name.encode() for name in names), b"\xff\xfe"])
    assert {path.name for path in share.host.iterdir()} >= set(names)
    with refused(63):
        share.client.create(share.top, b"x" * 256)


def test_access_is_the_users_rights(share: Share) -> None:
    program = share.host / "program"
    program.touch()
    program.chmod(0o755)
    plain = share.host / "plain"
    plain.touch()
    everything, execute = 0x3F, nfs3.EXECUTE
    allowed = share.client.access(share.client.walk(share.top, "program"), everything)
    assert allowed == nfs3.READ_ | nfs3.MODIFY | nfs3.EXTEND | nfs3.EXECUTE
    assert not share.client.access(share.client.walk(share.top, "plain"), everything) & execute
    folder = nfs3.READ_ | nfs3.LOOKUP_ | nfs3.MODIFY | nfs3.EXTEND | nfs3.DELETE
    assert share.client.access(share.top, everything) == folder
    assert share.client.access(share.top, nfs3.READ_) == nfs3.READ_


def test_symbolic_links_are_text(share: Share) -> None:
    handle = share.client.symlink(share.top, b"link", b"/etc/passwd")
    assert (share.host / "link").readlink() == Path("/etc/passwd")
    assert share.client.readlink(handle) == b"/etc/passwd"
    assert share.client.getattr(handle).type == 5
    (share.host / "a").touch()
    with refused(nfs3.INVAL):
        share.client.readlink(share.client.walk(share.top, "a"))


def test_contents_are_read_in_parts(share: Share) -> None:
    (share.host / "a").write_bytes(b"0123456789")
    handle = share.client.walk(share.top, "a")
    assert share.client.read(handle, 0, 4) == (b"0123", False)
    assert share.client.read(handle, 8, 100) == (b"89", True)
    assert share.client.read(handle, 100, 100) == (b"", True)
    with refused(21):
        share.client.read(share.top)


def test_contents_are_written_where_they_belong(share: Share) -> None:
    handle = share.client.create(share.top, b"a")
    for stable in (nfs3.UNSTABLE, nfs3.DATA_SYNC, nfs3.FILE_SYNC):
        written, verifier = share.client.write(handle, b"abc", offset=5, stable=stable)
        assert written == 3
        assert share.client.commit(handle) == verifier
    assert (share.host / "a").read_bytes() == b"\0" * 5 + b"abc"


def test_a_megabyte_and_a_hole_of_five_gigabytes(share: Share) -> None:
    handle = share.client.create(share.top, b"a")
    block = os.urandom(1 << 20)
    share.client.write(handle, block, offset=5 << 30)
    found = share.client.getattr(handle)
    assert found.size == (5 << 30) + (1 << 20)
    assert found.used < 16 << 20
    assert share.client.read(handle, 5 << 30) == (block, True)
    with refused(27):
        share.client.write(handle, b"x", offset=1 << 63)


def test_files_are_made_with_the_mode_that_is_asked_for(share: Share) -> None:
    share.client.create(share.top, b"a", Set(mode=0o6666))
    share.client.mkdir(share.top, b"d", 0o2775)
    assert stat.S_IMODE((share.host / "a").stat().st_mode) == 0o666
    assert stat.S_IMODE((share.host / "d").stat().st_mode) == 0o2775


def test_ways_of_making_a_file(share: Share) -> None:
    (share.host / "a").write_bytes(b"old")
    with refused(nfs3.EXIST):
        share.client.create(share.top, b"a", how=nfs3.GUARDED)
    share.client.create(share.top, b"a")
    assert (share.host / "a").read_bytes() == b"old"
    share.client.create(share.top, b"a", Set(size=0))
    assert (share.host / "a").read_bytes() == b""
    one = share.client.create_exclusively(share.top, b"lock", b"ABCDEFGH")
    assert share.client.create_exclusively(share.top, b"lock", b"ABCDEFGH") == one
    with refused(nfs3.EXIST):
        share.client.create_exclusively(share.top, b"lock", b"HGFEDCBA")


def test_a_file_is_not_made_through_a_link(share: Share, tmp_path: Path) -> None:
    (share.host / "link").symlink_to(tmp_path / "outside")
    with refused(nfs3.EXIST):
        share.client.create(share.top, b"link")
    assert not (tmp_path / "outside").exists()


def test_devices_and_sockets_are_refused(share: Share) -> None:
    with refused(nfs3.PERM):
        share.client.mknod(share.top, b"fifo")


def test_what_is_no_file_isnt_opened(share: Share) -> None:
    os.mkfifo(share.host / "fifo")
    handle, found = share.client.lookup(share.top, b"fifo")
    assert found.type == 7
    with refused(nfs3.INVAL):
        share.client.read(handle)


def test_removing(share: Share) -> None:
    share.client.create(share.top, b"a")
    folder = share.client.mkdir(share.top, b"d")
    share.client.create(folder, b"b")
    with refused(66):
        share.client.rmdir(share.top, b"d")
    with refused(20):
        share.client.rmdir(share.top, b"a")
    with pytest.raises(NfsError):
        share.client.remove(share.top, b"d")
    share.client.remove(folder, b"b")
    share.client.rmdir(share.top, b"d")
    share.client.remove(share.top, b"a")
    assert list(share.host.iterdir()) == []


def test_renaming_keeps_the_handles_of_what_is_below(share: Share) -> None:
    here, there = share.client.mkdir(share.top, b"here"), share.client.mkdir(share.top, b"there")
    folder = share.client.mkdir(here, b"d")
    file = share.client.create(folder, b"a")
    share.client.write(file, b"text")
    share.client.rename(here, b"d", there, b"new")
    assert (share.host / "there/new/a").read_bytes() == b"text"
    assert share.client.read(file)[0] == b"text"
    assert share.client.lookup(folder, b"..")[0] == there
    share.client.create(there, b"over")
    share.client.rename(folder, b"a", there, b"over")
    assert (share.host / "there/over").read_bytes() == b"text"


def test_hard_links(share: Share) -> None:
    handle = share.client.create(share.top, b"a")
    share.client.link(handle, share.top, b"b")
    assert share.client.getattr(handle).links == 2
    share.client.remove(share.top, b"b")
    # It was seen last under the name that is gone.
    assert share.client.getattr(handle).links == 1
    share.client.remove(share.top, b"a")
    with refused(nfs3.STALE):
        share.client.getattr(handle)


def test_a_listing_of_ten_thousand(share: Share) -> None:
    wanted = {b"%d" % number for number in range(10_000)}
    for name in wanted:
        (share.host / os.fsdecode(name)).touch()
    found = share.client.names(share.top)
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_a_listing_that_is_emptied_meanwhile_leaves_nothing_out(share: Share) -> None:
    for number in range(500):
        (share.host / str(number)).touch()
    cookie, end, seen = 0, False, 0
    while not end:
        entries, end = share.client.readdir(share.top, cookie, 1024)
        for entry in entries:
            cookie = entry.cookie
            if entry.name not in {b".", b".."}:
                share.client.remove(share.top, entry.name)
                seen += 1
    assert seen == 500
    assert list(share.host.iterdir()) == []


def test_a_listing_goes_on_with_another_server(home: Path, host: Path) -> None:
    for number in range(300):
        (host / str(number)).touch()
    with Served(home, str(host)) as client:
        top = client.mount(host)
        first, end = client.readdir(top, 0, 1024)
        assert not end
    (host / "299").unlink()
    rest, cookie = [], first[-1].cookie
    with Served(home, str(host)) as client:
        while not end:
            entries, end = client.readdir(top, cookie, 1024)
            rest += entries
            cookie = rest[-1].cookie
    names = [entry.name for entry in (*first, *rest)]
    assert len(names) == len(set(names))
    assert set(names) >= {b".", b"..", *(b"%d" % number for number in range(299))}


def test_a_listing_tells_attributes_and_handles(share: Share) -> None:
    (share.host / "a").write_bytes(b"123")
    entries, end = share.client.readdirplus(share.top)
    (entry,) = [entry for entry in entries if entry.name == b"a"]
    assert end
    assert entry.attributes
    assert (entry.attributes.size, share.client.read(entry.handle)[0]) == (3, b"123")
    assert [entry.cookie for entry in entries if entry.name in {b".", b".."}] == [1, 2]


def test_a_listing_without_room_for_one_name_is_refused(share: Share) -> None:
    with refused(nfs3.TOOSMALL):
        share.client.readdir(share.top, 0, 8)


def test_the_file_system(share: Share) -> None:
    total, free, available, *_ = share.client.fsstat(share.top)
    assert total >= free >= available > 0
    assert share.client.fsinfo(share.top)[:2] == (1 << 20, 1 << 20)
    assert share.client.pathconf(share.top)[1] == 255


def test_what_is_shared_for_reading_is_only_read(home: Path, host: Path) -> None:
    (host / "a").write_bytes(b"1")
    with Served(home, f"{host}:/src:ro") as client:
        top = client.mount("/src")
        handle = client.walk(top, "a")
        assert client.read(handle)[0] == b"1"
        assert client.access(handle) == nfs3.READ_
        tries: list[Callable[[], object]] = [
            lambda: client.write(handle, b"2"),
            lambda: client.setattr(handle, Set(size=0)),
            lambda: client.create(top, b"b"),
            lambda: client.mkdir(top, b"b"),
            lambda: client.symlink(top, b"b", b"a"),
            lambda: client.remove(top, b"a"),
            lambda: client.rmdir(top, b"a"),
            lambda: client.rename(top, b"a", top, b"b"),
            lambda: client.link(handle, top, b"b"),
        ]
        for attempt in tries:
            with refused(30):
                attempt()
    assert [path.read_bytes() for path in host.iterdir()] == [b"1"]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 28),
        (errno.EDQUOT, 69),
        (errno.EIO, 5),
        (errno.ENOMEM, nfs3.JUKEBOX),
        (errno.EMFILE, nfs3.JUKEBOX),
    ],
)
def test_the_hosts_errors_are_passed_on(
    share: Share, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    handle = share.client.create(share.top, b"a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with refused(status):
            share.client.write(handle, b"text")
    share.client.write(handle, b"text")


def test_what_a_home_folder_has_beside_files(share: Share) -> None:
    """Pipes and sockets are listed, and neither opened nor waited for; links that lead to themselves are text."""
    os.mkfifo(share.host / "pipe")
    address = socket.socket(socket.AF_UNIX)
    with address, contextlib.chdir(share.host):
        address.bind("socket")
    (share.host / "loop").symlink_to("loop")
    entries, _ = share.client.readdirplus(share.top)
    kinds = {entry.name: entry.attributes.type for entry in entries if entry.attributes}
    assert (kinds[b"pipe"], kinds[b"socket"], kinds[b"loop"]) == (7, 6, 5)
    assert share.client.readlink(share.client.walk(share.top, "loop")) == b"loop"
    for name in ("pipe", "socket", "loop"):
        handle = share.client.walk(share.top, name)
        for attempt in (
            lambda handle: share.client.read(handle),
            lambda handle: share.client.write(handle, b"x"),
            lambda handle: share.client.commit(handle),
            lambda handle: share.client.setattr(handle, Set(size=0)),
        ):
            with refused(nfs3.INVAL):
                attempt(handle)
    share.client.setattr(share.client.walk(share.top, "pipe"), Set(mode=0o600))
    assert stat.S_IMODE((share.host / "pipe").stat().st_mode) == 0o600
    for name in ("pipe", "socket", "loop"):
        share.client.remove(share.top, name.encode())


def test_listings_of_large_folders_are_forgotten_for_others(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    listing = Export.listing

    def watched(self: Export, identity: Identity, cookie: int) -> list[tuple[int, bytes]]:
        found = listing(self, identity, cookie)
        kept.append(sum(map(len, self._listings.values())))
        return found

    monkeypatch.setattr("machine.folders.export._LISTED", 100)
    monkeypatch.setattr(Export, "listing", watched)
    for folder in range(6):
        (share.host / f"d{folder}").mkdir()
        for number in range(40):
            (share.host / f"d{folder}/{number}").touch()
        assert len(share.client.names(share.client.walk(share.top, f"d{folder}"), 1024)) == 40
    assert 40 < max(kept) <= 100

"""What a handle means: as long as the file is there, for this machine only, and nothing outside of the folder."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import nfs_client
import pytest
from nfs_client import NfsError, Served, Set

from machine.folders import export, handles, nfs3
from machine.folders.attributes import Attributes, Identity
from machine.folders.export import Export
from machine.folders.handles import Handles, forget_answers
from machine.folders.mount_spec import DATABASE
from tests.unit.folders.conftest import Share
from tests.unit.folders.test_nfs3 import refused


def descriptors(below: Path) -> int:
    """How many files below that folder are open: others of this process are closed by threads of other tests."""
    return sum(is_below(descriptor, below) for descriptor in Path("/proc/self/fd").iterdir())


def is_below(descriptor: Path, folder: Path) -> bool:
    try:
        return descriptor.readlink().is_relative_to(folder.resolve())
    except FileNotFoundError:
        return False


def test_handles_outlive_the_server(home: Path, host: Path) -> None:
    (host / "a/b").mkdir(parents=True)
    (host / "a/b/file").write_bytes(b"text")
    with Served(home, str(host)) as client:
        top = client.mount(host)
        handle = client.walk(top, "a", "b", "file")
    with Served(home, str(host)) as client:
        assert client.read(handle)[0] == b"text"
        assert client.mount(host) == top


def test_servers_that_begin_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says "locked" to one of them now and then, without waiting."""
    refused = [sqlite3.OperationalError("database is locked")] * 3
    for error in refused:
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    connect = sqlite3.connect

    class Busy(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql and refused:
                raise refused.pop()
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", lambda *words, **named: connect(*words, **named, factory=Busy))
    Handles(tmp_path / DATABASE).close()
    assert not refused


def test_a_database_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "_PATIENCE", 0.05)
    Handles(tmp_path / DATABASE).close()
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Handles(tmp_path / DATABASE)


def test_handles_outlive_renames_on_the_host(home: Path, host: Path) -> None:
    (host / "a").mkdir()
    (host / "a/file").write_bytes(b"text")
    with Served(home, str(host)) as client:
        handle = client.walk(client.mount(host), "a", "file")
    (host / "a/file").rename(host / "a/other")
    (host / "a").rename(host / "b")
    with Served(home, str(host)) as client:
        assert client.read(handle)[0] == b"text"


def test_a_server_that_is_killed_has_forgotten_no_handle(home: Path, host: Path) -> None:
    handles = """
import os, signal, sys
from pathlib import Path
from typing import NoReturn
from machine.folders.attributes import Identity
from machine.folders.handles import Handles
handles = Handles(Path(sys.argv[1]))
handles.note(Identity(1, 2, 3), Identity(1, 1, 1), b"name")
with handles.at_once():
    handles.note(Identity(1, 3, 3), Identity(1, 1, 1), b"more")
print(handles.seal(b"mark", Identity(1, 2, 3)).hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", handles, home / DATABASE], capture_output=True, text=True)
    again = Handles(home / DATABASE)
    mark, identity = again.unseal(bytes.fromhex(killed.stdout))
    assert (mark, again.place(identity)) == (b"mark", ((1, 1, 1), b"name"))
    assert again.place(identity._replace(inode=3)) == ((1, 1, 1), b"more")
    again.close()


def test_a_removed_file_is_stale_though_another_has_its_inode(home: Path, host: Path) -> None:
    with Served(home, str(host)) as client:
        top = client.mount(host)
        victim, found = client.create(top, b"a"), client.lookup(top, b"a")[1]
    for number in range(50):  # ext4 gives the next file the same inode
        (host / "a").unlink(missing_ok=True)
        (host / str(number)).write_bytes(b"somebody else's")
        if (host / str(number)).stat().st_ino == found.fileid:
            break
    with Served(home, str(host)) as client:
        client.names(top)
        with refused(nfs3.STALE):
            client.write(victim, b"x")
    assert {path.read_bytes() for path in host.iterdir()} == {b"somebody else's"}


def test_a_file_that_was_removed_on_the_host_can_be_read_while_it_is_open(share: Share) -> None:
    (share.host / "a").write_bytes(b"text")
    handle = share.client.walk(share.top, "a")
    share.client.read(handle, 0, 1)
    (share.host / "a").unlink()
    assert share.client.read(handle)[0] == b"text"
    assert share.client.getattr(handle).links == 0


def test_guessed_handles_are_no_handles(share: Share) -> None:
    for place in range(len(share.top)):
        changed = bytearray(share.top)
        changed[place] ^= 1
        with refused(nfs3.BADHANDLE):
            share.client.getattr(bytes(changed))
    for handle in (b"", b"x", share.top + b"x", share.top[:-1], bytes(64)):
        with refused(nfs3.BADHANDLE):
            share.client.getattr(handle)


def test_handles_of_another_machine_are_none(share: Share, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Served(other, str(share.host)) as client:
        client.mount(share.host)
        with refused(nfs3.BADHANDLE):
            client.getattr(share.top)


def test_a_deep_folder_is_found_by_a_new_server(home: Path, host: Path) -> None:
    """It walks there without recursion. Deeper ones, and records that lead in a circle, are stale."""
    deep, names = os.open(host, os.O_RDONLY), []
    for _ in range(620):
        os.mkdir("d", dir_fd=deep)
        above, deep = deep, os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(above)
    os.close(deep)
    with Served(home, str(host)) as client:
        names.append(client.mount(host))
        for _ in range(620):
            names.append(client.walk(names[-1], "d"))
        client.create(names[590], b"file")
        file = client.walk(names[590], "file")
    with Served(home, str(host)) as client:
        client.rename(names[590], b"file", names[580], b"moved")
        assert client.getattr(file).links == 1
    with Served(home, str(host)) as client, refused(nfs3.STALE):
        client.getattr(names[615])
    handles = Handles(home / "folders.db")
    one, other = (Identity(*struct.unpack(">QQQ", handle[4:28])) for handle in (names[3], names[5]))
    handles.note(one, other, b"d")
    handles.close()
    with Served(home, str(host)) as client, refused(nfs3.STALE):
        client.getattr(names[8])


def test_handles_of_a_folder_that_isnt_shared_any_more_are_stale(home: Path, host: Path, tmp_path: Path) -> None:
    with Served(home, str(host)) as client:
        handle = client.mount(host)
    with Served(home, f"{tmp_path}:/another") as client, refused(nfs3.STALE):
        client.getattr(handle)


@pytest.mark.parametrize("name", [b"..", b"../outside", b"/etc", b"a/../..", b"\0", b"", b"a\0b"])
def test_no_name_leads_out(share: Share, tmp_path: Path, name: bytes) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    if name == b"..":
        assert share.client.lookup(share.top, name)[0] == share.top
    else:
        with pytest.raises(NfsError):
            share.client.lookup(share.top, name)
    for attempt in (
        lambda: share.client.create(share.top, name),
        lambda: share.client.mkdir(share.top, name),
        lambda: share.client.remove(share.top, name),
        lambda: share.client.rename(share.top, name, share.top, b"x"),
        lambda: share.client.symlink(share.top, name, b"x"),
    ):
        with pytest.raises(NfsError):
            attempt()
    assert (tmp_path / "outside").read_bytes() == b"secret"


def test_links_arent_followed(share: Share, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (share.host / "link").symlink_to(outside)
    (share.host / "file").symlink_to(outside / "secret")
    link, found = share.client.lookup(share.top, b"link")
    assert found.type == 5
    with pytest.raises(NfsError):
        share.client.lookup(link, b"secret")
    with pytest.raises(NfsError):
        share.client.names(link)
    with pytest.raises(NfsError):
        share.client.create(link, b"new")
    with pytest.raises(NfsError):
        share.client.read(share.client.walk(share.top, "file"))
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_folder_that_a_link_takes_the_place_of_leads_nowhere(home: Path, host: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (host / "a").mkdir()
    (host / "a/file").write_bytes(b"text")
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    with Served(home, str(host)) as client:
        folder = client.walk(client.mount(host), "a")
        file = client.walk(folder, "file")
    (host / "a").rename(tmp_path / "moved")
    (host / "a").symlink_to(outside)
    with Served(home, str(host)) as client:
        for attempt in (lambda: client.read(file), lambda: client.lookup(folder, b"file")):
            with refused(nfs3.STALE):
                attempt()


def test_keys_arent_shown(home: Path, host: Path) -> None:
    (host / ".ssh").mkdir()
    (host / ".ssh/id").write_bytes(b"secret")
    (host / "kept").touch()
    with Served(home, str(host), hidden=(host / ".ssh", host / ".docker")) as client:
        top = client.mount(host)
        assert client.names(top) == [b"kept"]
        for name in (b".ssh", b".docker"):
            with refused(2):
                client.lookup(top, name)
            with refused(nfs3.ACCES):
                client.mkdir(top, name)
            with refused(nfs3.ACCES):
                client.rename(top, b"kept", top, name)
        with refused(2):
            client.rename(top, b".ssh", top, b"seen")
    assert (host / ".ssh/id").exists()


def test_what_is_hidden_can_be_shared_by_itself(home: Path, host: Path) -> None:
    (host / ".docker").mkdir()
    (host / ".docker/config.json").touch()
    with Served(home, str(host / ".docker"), hidden=(host / ".docker",)) as client:
        assert client.names(client.mount(host / ".docker")) == [b"config.json"]


def test_a_folder_below_another_has_rights_of_its_own(home: Path, host: Path) -> None:
    (host / "sub").mkdir()
    (host / "sub/a").write_bytes(b"1")
    with Served(home, str(host), f"{host}/sub:/readonly:ro") as client:
        above, below = client.walk(client.mount(host), "sub", "a"), client.walk(client.mount("/readonly"), "a")
        assert above != below
        with refused(30):
            client.write(below, b"2")
        client.write(above, b"3")
        assert client.read(below)[0] == b"3"
        with refused(18):
            client.rename(client.mount(host), b"sub", client.mount("/readonly"), b"x")


def test_a_damaged_database_is_made_anew(home: Path, host: Path) -> None:
    (home / DATABASE).write_bytes(b"no database" * 1000)
    with Served(home, str(host)) as client:
        assert client.getattr(client.mount(host)).type == 2
    assert (home / DATABASE).stat().st_mode & 0o077 == 0


def test_a_call_that_comes_twice_is_done_once(home: Path, host: Path) -> None:
    """The connection ended before the answer: the guest asks the next server."""
    with Served(home, str(host)) as client:
        top = client.mount(host)
        made = client.create(top, b"a", how=nfs3.GUARDED, xid=1000)
        client.remove(top, b"a", xid=1001)
    (host / "a").touch()
    with Served(home, str(host)) as client:
        assert client.create(top, b"a", how=nfs3.GUARDED, xid=1000) == made
        client.remove(top, b"a", xid=1001)
        assert (host / "a").exists()
        client.remove(top, b"a", xid=1002)
        assert not (host / "a").exists()


def test_a_guest_that_goes_back_in_time_is_answered_anew(home: Path, host: Path) -> None:
    with Served(home, str(host)) as client:
        top = client.mount(host)
        client.create(top, b"a", how=nfs3.GUARDED, xid=1000)
    (host / "a").unlink()
    forget_answers(home / DATABASE)
    with Served(home, str(host)) as client:
        client.create(top, b"a", how=nfs3.GUARDED, xid=1000)
    assert (host / "a").exists()


def test_the_owner_writes_what_he_made_for_reading_only(home: Path, host: Path) -> None:
    """git makes its objects so; each write comes by itself, and the server may be another by then."""
    with Served(home, str(host)) as client:
        handle = client.create(client.mount(host), b"object", Set(mode=0o444))
        client.write(handle, b"one")
    with Served(home, str(host)) as client:
        client.write(handle, b"two", offset=3)
    assert (host / "object").read_bytes() == b"onetwo"
    assert (host / "object").stat().st_mode & 0o777 == 0o444


def test_no_descriptors_are_lost(home: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_KEPT_FOLDERS", 256)
    for number in range(400):
        (host / f"d{number}").mkdir()
        (host / f"d{number}/file").touch()
    assert descriptors(host) == 0
    with Served(home, str(host)) as client:
        top = client.mount(host)
        for number in range(400):
            client.read(client.walk(top, f"d{number}", "file"))
        assert 0 < descriptors(host) < 600
    assert descriptors(host) == 0


def test_a_share_whose_folder_was_swapped_for_a_link_shares_nothing(home: Path, host: Path, tmp_path: Path) -> None:
    """The guest may do that through another share of it, which has the folder above."""
    (tmp_path / "outside").mkdir()
    (host / "data").mkdir()
    with Served(home, str(host), f"{host}/data:/data:ro") as client:
        top = client.mount(host)
        client.rename(top, b"data", top, b"old")
        client.symlink(top, b"data", str(tmp_path / "outside").encode())
    with Served(home, str(host), f"{host}/data:/data:ro") as client, pytest.raises(NfsError):
        client.mount("/data")


def test_nothing_above_what_is_hidden_can_be_moved(home: Path, host: Path) -> None:
    """What is hidden is found by its path when a server starts: elsewhere it would be seen."""
    (host / "state/store").mkdir(parents=True)
    (host / "state/store/key").write_bytes(b"secret")
    (host / "other").mkdir()
    (host / "link").symlink_to("state")
    with Served(home, str(host), hidden=(host / "link/store",)) as client:
        top = client.mount(host)
        for name in (b"state", b"link"):
            with refused(nfs3.ACCES):
                client.rename(top, name, top, b"moved")
        with refused(nfs3.ACCES):
            client.rename(top, b"other", top, b"link")
        with refused(nfs3.ACCES):
            client.remove(top, b"link")
        client.rename(top, b"other", top, b"moved")


def test_a_folder_that_the_host_moved_away_is_not_written_any_more(
    home: Path, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machine.folders.export._CHECKED", -1.0)
    (host / "private").mkdir()
    with Served(home, str(host)) as client:
        folder = client.walk(client.mount(host), "private")
        client.create(folder, b"before")
        (host / "private").rename(tmp_path / "private")
        (tmp_path / "private/new").write_bytes(b"secret")
        with refused(nfs3.STALE):
            client.lookup(folder, b"new")
        with refused(nfs3.STALE):
            client.create(folder, b"after")
    assert not (tmp_path / "private/after").exists()


def test_a_full_disk_keeps_the_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another key all that the guest has would be no handles any more."""
    first = Handles(home / DATABASE)
    seal = first.seal(b"mark", Identity(1, 2, 3))
    first.close()

    def full(path: Path) -> NoReturn:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("machine.folders.handles._opened", full)
        with pytest.raises(sqlite3.OperationalError):
            Handles(home / DATABASE)
    again = Handles(home / DATABASE)
    assert again.unseal(seal) == (b"mark", (1, 2, 3))
    again.close()


def test_a_place_that_couldnt_be_written_is_not_taken_for_written(home: Path) -> None:
    handles, file = Handles(home / DATABASE), Identity(1, 2, 3)
    handles._database.execute("PRAGMA query_only = ON")
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            handles.note(file, Identity(1, 1, 1), b"name")
        with pytest.raises(sqlite3.OperationalError), handles.at_once():
            handles.note(file, Identity(1, 1, 1), b"name")
    handles._database.execute("PRAGMA query_only = OFF")
    handles.note(file, Identity(1, 1, 1), b"name")
    handles.close()
    again = Handles(home / DATABASE)
    assert again.place(file) == ((1, 1, 1), b"name")
    again.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Handles]:
    """The handles of the servers that the test starts."""
    all_of_them: list[Handles] = []

    def make(path: Path) -> Handles:
        all_of_them.append(Handles(path))
        return all_of_them[-1]

    monkeypatch.setattr("machine.folders.server.Handles", make)
    return all_of_them


def test_a_full_disk_keeps_nobody_from_removing_files(home: Path, host: Path, made: list[Handles]) -> None:
    """What the files' places take in the database finds no room there."""
    for number in range(2000):
        (host / f"{number:0200}").touch()
    with Served(home, str(host)) as client:
        top = client.mount(host)
        database = made[0]._database
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        names = client.names(top)
        assert len(names) == 2000
        assert made[0]._unwritten
        handle, _ = client.lookup(top, names[0])
        assert client.read(handle)[0] == b""
        for name in names[:100]:
            client.remove(top, name)
        database.execute("PRAGMA max_page_count = 100000")
        client.create(top, b"new")
        kept = client.lookup(top, names[-1])[0]
    assert len(list(host.iterdir())) == 1901
    with Served(home, str(host)) as client:
        assert client.read(kept)[0] == b""


def test_the_key_is_on_the_disk_before_the_first_handle(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            done.append(sql)
            return super().execute(sql, parameters)  # type: ignore[arg-type]

    connect, sync = sqlite3.connect, os.fsync

    def watched_sync(descriptor: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: connect(path, factory=Watched, **more))
    monkeypatch.setattr(os, "fsync", watched_sync)
    Handles(home / DATABASE).close()
    written = next(place for place, sql in enumerate(done) if sql.startswith("INSERT OR IGNORE INTO keys"))
    assert str(home) in done[:written]
    assert [sql for sql in done[:written] if "synchronous" in sql][-1] == "PRAGMA synchronous = FULL"
    assert [sql for sql in done if "synchronous" in sql][-1] == "PRAGMA synchronous = OFF"


def test_what_a_rename_replaces_is_forgotten(home: Path, host: Path, made: list[Handles]) -> None:
    with Served(home, str(host)) as client:
        top = client.mount(host)

        def places() -> int:
            return int(made[0]._database.execute("SELECT count(*) FROM places").fetchone()[0])

        for _ in range(5):
            client.create(top, b"new")
            client.rename(top, b"new", top, b"kept")
        assert places() == 1
        new = client.walk(top, "kept")
        assert client.getattr(new).links == 1
        client.link(new, top, b"other")
        client.rename(top, b"other", top, b"kept")  # of one file's names to another: does nothing (rename(2))
        client.create(top, b"new")
        client.rename(top, b"new", top, b"kept")
        assert client.getattr(new).links == 1  # it is there by its other name
        (host / "empty").mkdir()
        client.rename(top, b"empty", top, b"folder")
        client.mkdir(top, b"sub")
        client.rename(top, b"sub", top, b"folder")
        assert places() == 3


def test_a_server_without_descriptors_closes_what_it_keeps(home: Path, host: Path) -> None:
    """And has the guest ask again, as the kernel's client does by itself."""
    for number in range(100):
        (host / f"d{number}").mkdir()
        (host / f"d{number}/file").write_bytes(b"text")
    script = """
import resource, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from nfs_client import NfsError, Served
def again(call):
    for _ in range(3):
        try:
            return call()
        except NfsError as error:
            if error.status != 10008:
                raise
            refused.append(error)
    raise AssertionError
refused = []
with Served(Path(sys.argv[2]), sys.argv[3]) as client:
    top = client.mount(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    for number in range(100):
        folder = again(lambda: client.walk(top, f"d{number}"))
        file = again(lambda: client.walk(folder, "file"))
        assert again(lambda: client.read(file))[0] == b"text"
assert refused
"""
    command = [sys.executable, "-c", script, str(Path(nfs_client.__file__).parent), str(home), str(host)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mode_is_never_another_files(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest has a second connection, and exchanges a folder for a program between two steps of the first."""
    (share.host / "d").mkdir()
    (share.host / "program").touch()
    before = (share.host / "program").stat().st_mode
    folder = share.client.walk(share.top, "d")
    locate = Export.locate

    def exchanged(self: Export, *arguments: Any) -> tuple[int, bytes, Attributes]:
        found = locate(self, *arguments)
        if found[1] == b"d" and (share.host / "d").is_dir():
            (share.host / "d").rename(share.host / "old")
            (share.host / "program").rename(share.host / "d")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Export, "find", lambda self, identity: locate(self, identity)[2])
        patch.setattr(Export, "locate", exchanged)
        with refused(nfs3.STALE):
            share.client.setattr(folder, Set(mode=0o6755))
    assert (share.host / "d").stat().st_mode == before

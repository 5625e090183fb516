"""What the host does in a folder that a container binds is what the guest's program is asked to repeat."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from nfs_client import Served

from machine.errors import SSHFailed
from machine.folders import attributes, inotify, mount_spec, watching
from machine.folders.inotify import Inotify
from machine.folders.trees import Tree, trees
from machine.folders.watching import Watching
from machine.paths import MachineFolder
from machine.ssh.relay import Connection

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
PATIENCE = 120.0


class Guest:
    """A connection and its channel in one: the guest's program. It answers while it isn't held."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.commands: list[str] = []
        self.fails: list[Exception] = []
        self.answer = b"."
        self.closed = self.eof_received = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._seen = threading.Condition()

    def execute(self, command: str) -> Guest:
        self.commands.append(command)
        if self.fails:
            raise self.fails.pop(0)
        self.closed = False
        return self

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        if self.closed:
            raise OSError("closed")
        assert data.endswith(b"\0")
        self.goes_on.wait(PATIENCE)
        with self._seen:
            self.records += [record for record in data.split(b"\0") if record]
            self._seen.notify_all()

    def recv(self, size: int) -> bytes:
        return self.answer

    def close(self) -> None:
        self.closed = True

    def hears(self, *expected: str, within: float = PATIENCE) -> None:
        """Wait for these records, numbers of inodes left out, and look that no other comes."""

        def heard() -> list[str]:
            return [(record[:1] + record[record.index(b" ") :]).decode() for record in self.records]

        with self._seen:
            self._seen.wait_for(lambda: len(self.records) >= len(expected), within)
            self._seen.wait(0.2)
        assert sorted(heard()) == sorted(expected)
        self.records.clear()


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("text")
    return folder


@pytest.fixture
def machine_folder(tmp_path: Path) -> MachineFolder:
    path = tmp_path / "store/machines/dev"
    path.mkdir(parents=True)
    return MachineFolder(path)


@pytest.fixture
def told() -> list[list[str]]:
    return []


@pytest.fixture
def watcher(machine_folder: MachineFolder, guest: Guest, told: list[list[str]]) -> Iterator[Watching]:
    with closing(Watching(machine_folder, cast(Connection, guest), lambda: told.append(made.warnings))) as made:
        yield made


@pytest.fixture
def watched(watcher: Watching, host: Path) -> Watching:
    begin(watcher, Tree(os.fsencode(host), b"/src", os.fsencode(host)))
    return watcher


def begin(watcher: Watching, *wanted: Tree) -> None:
    """Watch, and wait until all folders are."""
    watcher.bring_in_line(frozenset(wanted))
    session = watcher._session
    until(lambda: session is not None and session._watched == frozenset(wanted), "the folders to be watched")


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_file(watched: Watching, guest: Guest, host: Path) -> None:
    (host / "file").write_text("more")
    guest.hears("M /src/file")
    (host / "new").write_text("text")
    guest.hears("C /src/new")
    os.utime(host / "new")
    guest.hears("M /src/new")
    (host / "new").rename(host / "file")
    guest.hears("D /src/new", "C /src/file")
    (host / "file").unlink()
    guest.hears("D /src/file")


def test_folders(watched: Watching, guest: Guest, host: Path) -> None:
    """What is in one at once is found; a folder that went away is watched no more, one that moved where it is now."""
    (host / "a/b").mkdir(parents=True)
    (host / "a/b/file").write_text("text")
    guest.hears("K /src/a", "K /src/a/b", "C /src/a/b/file")
    (host / "a/b/file").write_text("more")
    guest.hears("M /src/a/b/file")
    (host / "a").rename(host / "c")
    guest.hears("R /src/a", "K /src/c")
    (host / "c/b/file").write_text("and more")
    guest.hears("M /src/c/b/file")
    shutil.rmtree(host / "c")
    guest.hears("D /src/c/b/file", "R /src/c/b", "R /src/c")


def test_the_inode_is_the_guests(watched: Watching, guest: Guest, host: Path) -> None:
    (host / "new").write_text("text")
    until(lambda: guest.records, "a record")
    assert guest.records == [b"C%d /src/new" % (host / "new").stat().st_ino]


def test_one_save_is_told_once(watched: Watching, guest: Guest, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an editor does it; and what is there for a moment only isn't told. On a busy host a save takes longer."""
    monkeypatch.setattr(watching, "_GATHER", 2.0)
    (host / "4913").touch()
    (host / "4913").unlink()
    (host / "file").rename(host / "file~")
    with (host / "file").open("w") as file:
        for _ in range(20):
            file.write("text")
            file.flush()
    (host / "file~").unlink()
    guest.hears("C /src/file", "D /src/file~")


def test_a_burst_is_gathered_while_the_guest_is_busy(watched: Watching, guest: Guest, host: Path) -> None:
    guest.goes_on.clear()
    for number in range(1000):
        (host / "file").write_text(str(number))
    guest.goes_on.set()
    until(lambda: guest.records, "a record")
    time.sleep(0.3)
    assert 1 <= len(guest.records) <= 3


def test_two_thousand_files_change_at_once(watched: Watching, guest: Guest, host: Path) -> None:
    """As by git checkout, which removes and makes them."""
    for number in range(2000):
        (host / f"sub/{number}").write_text("one")
    until(lambda: len(guest.records) >= 2000, "all files")
    time.sleep(0.3)
    guest.records.clear()
    for number in range(2000):
        (host / f"sub/{number}").unlink()
        (host / f"sub/{number}").write_text("two")
    until(lambda: len({record.split(b" ")[1] for record in guest.records}) == 2000, "all files again")


def test_no_event_is_lost_without_a_word(
    watched: Watching, guest: Guest, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel keeps 16,384 events at most: then what is there is looked at."""
    session = watched._session
    assert session
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    held, go = threading.Event(), threading.Event()
    read = session._inotify.read

    def slowly() -> Iterator[inotify.Event]:
        held.set()
        go.wait(PATIENCE)
        yield from read()

    monkeypatch.setattr(session._inotify, "read", slowly)
    (host / "file").write_text("wake")
    held.wait(PATIENCE)
    names = [f"{number}" for number in range(limit // 4 + 10)]  # made, modified, closed, its modes changed
    for name in names:
        (host / "sub" / name).write_text("text")
        (host / "sub" / name).chmod(0o600)
    go.set()
    until(lambda: {b"/src/sub/" + name.encode() for name in names} <= paths(guest), "all files")


def paths(guest: Guest) -> set[bytes]:
    return {record.split(b" ", 1)[1] for record in list(guest.records)}


def test_what_the_guest_did_isnt_told(
    watcher: Watching, guest: Guest, machine_folder: MachineFolder, host: Path
) -> None:
    """But what the host does to the same files is."""
    begin(watcher, Tree(os.fsencode(host), b"/src", os.fsencode(host)))
    with Served(machine_folder.path, str(host), ring=2) as client:
        top = client.mount(host)
        for number in range(200):
            client.write(client.create(top, b"f%d" % number), b"text")
        sub = client.mkdir(top, b"made")
        client.create(sub, b"inner")
        client.rename(top, b"f1", sub, b"moved")
        client.rename(top, b"made", top, b"renamed")
        client.remove(top, b"f2")
        guest.hears()
        (host / "f3").write_text("the host's")
        (host / "renamed/moved").unlink()
        (host / "f2").touch()
        guest.hears("M /src/f3", "D /src/renamed/moved", "C /src/f2")
        (host / "f2").unlink()
        guest.hears("D /src/f2")


def test_hidden_folders_are_neither_watched_nor_told(
    watcher: Watching, guest: Guest, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / ".ssh/sub").mkdir(parents=True)
    monkeypatch.setattr(mount_spec, "hidden", lambda store: [host / ".ssh"])
    begin(watcher, Tree(os.fsencode(host), b"/src", os.fsencode(host)))
    (host / ".ssh/id").write_text("secret")
    (host / ".ssh/sub/id").write_text("secret")
    shutil.rmtree(host / ".ssh")
    (host / "file").write_text("more")
    guest.hears("M /src/file")


def test_only_the_file_that_is_bound_counts(watcher: Watching, guest: Guest, host: Path) -> None:
    begin(watcher, Tree(os.fsencode(host), b"/src", os.fsencode(host), b"file"))
    (host / "other").write_text("text")
    (host / "sub/inner").write_text("text")
    (host / "file").write_text("more")
    guest.hears("M /src/file")


def test_what_no_container_binds_is_watched_no_more(watcher: Watching, guest: Guest, host: Path) -> None:
    one, other = (Tree(os.fsencode(host / name), b"/" + name.encode(), os.fsencode(host)) for name in ("sub", "more"))
    (host / "more").mkdir()
    begin(watcher, one, other)
    begin(watcher, other)
    (host / "sub/file").write_text("text")
    (host / "more/file").write_text("text")
    guest.hears("C /more/file")
    before = threading.active_count()
    watcher.bring_in_line(frozenset())
    until(lambda: threading.active_count() < before, "the threads to end")
    assert guest.closed
    begin(watcher, one)
    (host / "sub/file").write_text("more")
    guest.hears("M /sub/file")


def test_the_limit_of_the_system(
    watcher: Watching, guest: Guest, host: Path, told: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is left to other programs; what isn't watched is named."""
    monkeypatch.setattr(inotify, "_limit", lambda: 6)
    for name in ("a", "b", "c", "d", "e", "f"):
        (host / name).mkdir()
    begin(watcher, Tree(os.fsencode(host), b"/src", os.fsencode(host)))
    until(lambda: told and told[-1], "a warning")
    assert "and in 2 other folders: this computer's limit fs.inotify.max_user_watches" in told[-1][0]
    assert f"{host}/" in told[-1][0]
    (host / "file").write_text("more")
    guest.hears("M /src/file")


def test_a_connection_that_breaks_is_made_again(
    watched: Watching, guest: Guest, host: Path, told: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.05)
    until(lambda: guest.commands, "the program to be started")
    guest.fails = [SSHFailed("no route"), SSHFailed("no route")]
    guest.closed = True
    (host / "file").write_text("more")
    guest.hears("M /src/file")
    assert any("don't hear of changes of shared files: no route" in line for lines in told for line in lines)
    until(lambda: told[-1] == [], "the warning to end")


def test_an_older_machine_is_told_of_and_left_alone(
    watcher: Watching, guest: Guest, host: Path, told: list[list[str]]
) -> None:
    guest.answer = b"?"
    watcher.bring_in_line(frozenset({Tree(os.fsencode(host), b"/src", os.fsencode(host))}))
    until(lambda: told and told[-1], "a warning")
    (host / "file").write_text("more")
    watcher.bring_in_line(frozenset({Tree(os.fsencode(host), b"/src", os.fsencode(host))}))
    time.sleep(0.2)
    assert len(guest.commands) == 1
    assert watcher.warnings == [
        "programs in containers don't hear of changes of shared files: the machine's system is older: machine upgrade"
    ]


def test_no_instance_is_left(watcher: Watching, guest: Guest, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.inotify.max_user_instances: it is tried again the next time."""

    def fail(is_hidden: object) -> Inotify:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    wanted = Tree(os.fsencode(host), b"/src", os.fsencode(host))
    with monkeypatch.context() as patch:
        patch.setattr(watching, "Inotify", fail)
        watcher.bring_in_line(frozenset({wanted}))
    assert "programs in containers don't hear of changes of shared files: " in watcher.warnings[0]
    begin(watcher, wanted)
    assert watcher.warnings == []


def test_nothing_runs_while_nothing_changes(watched: Watching, guest: Guest) -> None:
    until(lambda: guest.commands, "the program to be started")
    time.sleep(0.3)
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.05


def bound(*sources: str) -> list[dict[str, Any]]:
    volumes = [{"Type": "volume", "Source": "/var/lib/docker/volumes/x"}, {"Type": "tmpfs"}]
    return [{"Mounts": [*volumes, *({"Type": "bind", "Source": source} for source in sources)]}, {"Mounts": None}]


def test_trees(host: Path, tmp_path: Path) -> None:
    """Each once: not what lies in another, nor what isn't shared, nor what a link leads out to."""
    (host / "out").symlink_to(tmp_path)
    (host / "in").symlink_to("sub")
    top = os.fsencode(host)
    folders = [mount_spec.parse(f"{host}:/src"), mount_spec.parse(f"{host}:/read:ro")]
    whole = Tree(top, b"/src", top)
    sub = Tree(top + b"/sub", b"/src/sub", top)
    assert trees(bound("/src", "/src/sub", "/src/file", "/etc"), folders) == {whole}
    assert trees(bound("/src/sub", "/src/in", "/src/out", "/read/sub", "/srcs"), folders) == {sub}
    assert trees(bound("/src/file"), folders) == {Tree(top, b"/src", top, b"file")}
    assert trees([], folders) == frozenset()


def test_other_file_systems_have_other_numbers() -> None:
    top, other = attributes.Identity(1, 2, 3), attributes.Identity(7, 2, 3)
    assert attributes.file_id(top, top) == 2
    assert attributes.file_id(top, other) not in {2, attributes.file_id(top, attributes.Identity(8, 2, 3))}


def test_ten_thousand_folders(host: Path) -> None:
    """Few seconds and kilobytes; docs/folders.md has figures."""
    for number in range(10_000):
        (host / f"{number % 100}/{number}").mkdir(parents=True)
    if inotify._limit() < 25_000:
        pytest.skip("this computer allows too few")
    with closing(Inotify(lambda path: False)) as watches:
        assert sum(1 for _ in watches.add(os.fsencode(host))) == 10_102
        assert len(watches) == 10_102
        watches.drop(os.fsencode(host))
        assert len(watches) == 0

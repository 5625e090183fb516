"""What a server writes of the guest's changes is what the helper reads, also from several servers at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from nfs_client import Served, Set

from machine.folders import attributes, changes
from machine.folders.attributes import Identity
from machine.folders.changes import Reader, Writer, removal

FOLDER = Identity(1, 77, 0)


@pytest.fixture
def reader(home: Path) -> Iterator[Reader]:
    with closing(Reader(home)) as made:
        yield made


def test_a_removal_counts_once(home: Path, reader: Reader) -> None:
    with closing(Writer(home, 3)) as writer:
        writer.removed(FOLDER, b"name")
        reader.update()
        assert not reader.take(removal(77, b"other"))
        assert reader.take(removal(77, b"name"))
        assert not reader.take(removal(77, b"name"))


def test_a_ring_goes_on_where_the_last_server_ended(home: Path, reader: Reader) -> None:
    """More than a ring holds, by servers one after the other; what was there before the reader isn't read."""
    for server in range(10):
        with closing(Writer(home, 0)) as writer:
            for number in range(1000):
                writer.removed(FOLDER, b"%d" % (server * 1000 + number))
        reader.update()
    assert reader.take(removal(77, b"9999"))
    assert reader.take(removal(77, b"0"))
    with closing(Reader(home)) as late:
        late.update()
        assert not late.take(removal(77, b"9998"))


def test_a_reader_that_is_late_reads_the_newest(home: Path, reader: Reader) -> None:
    with closing(Writer(home, 0)) as writer:
        for number in range(10_000):
            writer.removed(FOLDER, b"%d" % number)
    reader.update()
    assert reader.take(removal(77, b"9999"))
    assert not reader.take(removal(77, b"0"))


def test_it_forgets(home: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Writer(home, 0)) as writer:
        writer.removed(FOLDER, b"name")
        reader.update()
        monkeypatch.setattr(changes, "_MEMORY", -1.0)
        reader.update()
    assert not reader.take(removal(77, b"name"))


def test_it_waits_for_a_call_that_is_at_work(home: Path, reader: Reader) -> None:
    with closing(Writer(home, 0)) as writer:
        begun, end = threading.Event(), threading.Event()

        def work() -> None:
            with writer.working():
                begun.set()
                end.wait(60)
                writer.removed(FOLDER, b"name")

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(60)
        threading.Timer(0.1, end.set).start()
        reader.wait()
        reader.update()
        assert reader.take(removal(77, b"name"))
        thread.join()


def test_it_waits_for_no_later_call(home: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that writes without a pause doesn't keep it."""
    monkeypatch.setattr(changes, "_PATIENCE", 1e6)
    with closing(Writer(home, 0)) as writer:
        calls = [writer.working()]
        calls[0].__enter__()

        def end_one_and_begin_another(seconds: float) -> None:
            calls.append(writer.working())
            calls[-1].__enter__()
            calls.pop(0).__exit__(None, None, None)

        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", end_one_and_begin_another)
            reader.wait()
        calls.pop().__exit__(None, None, None)
        assert calls == []


def test_it_waits_once_for_a_server_that_was_killed(
    home: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_PATIENCE", 0.05)
    writer = Writer(home, 0)
    call = writer.working()
    call.__enter__()
    reader.wait()
    monkeypatch.setattr(changes, "_PATIENCE", 1e6)
    reader.wait()
    call.__exit__(None, None, None)
    writer.close()


def test_each_change_of_the_guests_is_told(home: Path, host: Path, reader: Reader) -> None:
    """The last time of change of each file, and each name that went."""

    def told(*names: str) -> bool:
        reader.update()
        folder = os.open(host, os.O_RDONLY)
        found = [attributes.of(folder, name.encode()) for name in names]
        os.close(folder)
        return all(reader.has((one.identity.inode, one.changed)) for one in found)

    with Served(home, str(host), ring=0) as client:
        top = client.mount(host)
        inode = host.stat().st_ino
        file = client.create(top, b"file")
        assert told("file")
        client.write(file, b"text")
        assert told("file")
        client.setattr(file, Set(mode=0o600))
        assert told("file")
        client.mkdir(top, b"sub")
        client.symlink(top, b"link", b"file")
        assert told("sub", "link")
        client.link(file, top, b"hard")
        assert told("file", "hard")
        client.rename(top, b"hard", top, b"moved")
        assert told("moved")
        assert reader.take(removal(inode, b"hard"))
        client.remove(top, b"moved")
        client.rmdir(top, b"sub")
        reader.update()
        assert reader.take(removal(inode, b"moved"))
        assert reader.take(removal(inode, b"sub"))
        (host / "file").write_text("the host's")
        assert not told("file")

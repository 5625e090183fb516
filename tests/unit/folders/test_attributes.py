"""Which file it is, on each system."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from nfs_client import Served

from machine.folders import attributes

FIELDS = ("mode", "nlink", "uid", "gid", "size", "blocks", "dev", "ino", "atime_ns", "mtime_ns", "ctime_ns", "rdev")


def status(**more: float) -> os.stat_result:
    return cast(os.stat_result, SimpleNamespace(**{f"st_{field}": 1 for field in FIELDS}, **more))


@pytest.mark.parametrize(
    ("told", "born"), [({"st_birthtime": 12.5}, 12_500_000_000), ({"st_birthtime": -1.0}, 0), ({}, 0)]
)
def test_a_time_of_birth_is_taken_where_there_is_one(told: dict[str, float], born: int) -> None:
    assert attributes._converted(status(**told)).identity == (1, 1, born)


def test_linux_tells_when_a_file_was_made(tmp_path: Path) -> None:
    if attributes._statx is None:
        pytest.skip("the C library has no statx")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert attributes.of_open(folder).identity.born > 1_000_000_000 * 10**9
        assert attributes.of(folder, b".") == attributes.of_open(folder)
    finally:
        os.close(folder)


def test_without_statx_files_are_served(home: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_statx", None)
    (host / "a").write_bytes(b"text")
    with Served(home, str(host)) as client:
        assert client.read(client.walk(client.mount(host), "a"))[0] == b"text"


@pytest.mark.skipif(attributes._statx is None, reason="needs statx")
def test_a_listing_doesnt_wait_for_what_is_mounted_in_the_folder(
    home: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FUSE server that is gone answers nothing; the kernel tells what it remembers."""
    statx, asked = attributes._statx, []
    assert statx

    def watched(folder: int, name: bytes, flags: int, mask: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
        done = int(statx(folder, name, flags, mask, buffer))
        if name == b"mounted":
            asked.append(bool(flags & attributes._DONT_SYNC))
            ctypes.memmove(ctypes.addressof(buffer) + 8, attributes._MOUNT_ROOT.to_bytes(8, sys.byteorder), 8)
        return done

    monkeypatch.setattr(attributes, "_statx", watched)
    (host / "mounted").mkdir()
    (host / "file").write_bytes(b"text")
    with Served(home, str(host)) as client:
        top = client.mount(host)
        assert sorted(client.names(top)) == [b"file", b"mounted"]
        assert asked == [True]
        assert client.lookup(top, b"mounted")[1].type == 2
        assert asked[-1] is False

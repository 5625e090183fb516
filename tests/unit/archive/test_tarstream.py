"""Reading tars: what export writes, and everything that a tar can be besides."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
from archives import tar
from hypothesis import given
from hypothesis import strategies as st

from machine.archive import tarstream
from machine.errors import MachineError


def read(raw: bytes) -> list[tuple[str, bytes]]:
    source = io.BufferedReader(io.BytesIO(raw))
    return [(member.name, b"".join(member.blocks())) for member in tarstream.members(source)]


FILES = [("a", b"x" * 512), ("b/c", b""), ("d", b"y" * 700_001)]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("zip", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_plain_files(format: int, zip: Callable[[bytes], bytes]) -> None:
    assert read(zip(tar(FILES, {}, format))) == FILES


def test_what_is_not_read_is_passed_over() -> None:
    source = io.BufferedReader(io.BytesIO(tar(FILES, {})))
    assert [member.name for member in tarstream.members(source)] == ["a", "b/c", "d"]


def test_sizes_of_more_than_8_gib_as_pax_writes_them() -> None:
    """The size stands in a header of its own then; a small file may have one, too."""
    entry = tarfile.TarInfo("disk")
    entry.size = 5
    entry.pax_headers = {"size": "5"}
    raw = entry.tobuf(tarfile.PAX_FORMAT) + b"12345".ljust(512, b"\0") + bytes(1024)
    assert read(raw) == [("disk", b"12345")]


def set_type(kind: bytes, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = kind, link

    return change


KINDS = {
    "symbolic link": set_type(tarfile.SYMTYPE, "/etc/shadow"),
    "hard link": set_type(tarfile.LNKTYPE, "about.json"),
    "character device": set_type(tarfile.CHRTYPE),
    "block device": set_type(tarfile.BLKTYPE),
    "fifo": set_type(tarfile.FIFOTYPE),
    "directory": set_type(tarfile.DIRTYPE),
    "sparse": set_type(tarfile.GNUTYPE_SPARSE),
    "contiguous": set_type(tarfile.CONTTYPE),
    "global header": set_type(tarfile.XGLTYPE),
    "long name": set_type(tarfile.GNUTYPE_LONGNAME),
    "long link": set_type(tarfile.GNUTYPE_LONGLINK),
    "unknown": set_type(b"?"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_anything_but_a_plain_file(kind: str) -> None:
    with pytest.raises(MachineError, match="is not a plain file"):
        read(tar([("disk", b"x" * 600)], {"disk": KINDS[kind]}))


def test_a_name_that_needs_a_header_of_its_own() -> None:
    with pytest.raises(MachineError, match="is not a plain file"):
        read(tar([("n" * 300, b"x")], {}, tarfile.GNU_FORMAT))
    with pytest.raises(MachineError, match="it holds"):
        read(tar([("n" * 300, b"x")], {}, tarfile.PAX_FORMAT))


def header(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo("disk")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "raw",
    [
        header(1 << 40, tarfile.XHDTYPE) + bytes(1024),
        header(20, tarfile.XHDTYPE) + b"20 GNU.sparse.size=9".ljust(512, b"\0") + header(1) + bytes(512),
        header(9, tarfile.XHDTYPE) + b"9 size=x\n".ljust(512, b"\0") + header(1) + bytes(512),
        header(10, tarfile.XHDTYPE) + b"10 size=-1".ljust(512, b"\0") + header(1) + bytes(512),
        header(-5) + bytes(1024),
    ],
    ids=["large header", "sparse by pax", "no number", "negative by pax", "negative"],
)
def test_headers_that_no_export_writes(raw: bytes) -> None:
    with pytest.raises(MachineError, match="it holds"):
        read(raw)


@pytest.mark.parametrize("raw", [b"", b"text", header(1 << 50) + b"x" * 5000, tar(FILES, {})[:1000]])
def test_cut_short(raw: bytes) -> None:
    with pytest.raises(MachineError, match="incomplete"):
        read(raw)


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress], ids=["bzip2", "xz"])
def test_other_compressions_are_not_even_tried(compress: Callable[[bytes], bytes]) -> None:
    """An xz file says how much memory its reader needs."""
    with pytest.raises(MachineError):
        read(compress(tar(FILES, {})))


def test_a_damaged_gzip() -> None:
    good = bytearray(gzip.compress(tar(FILES, {})))
    for raw in (good[: len(good) // 2], good[:20] + b"\xff" * 40 + good[60:]):
        with pytest.raises(MachineError, match=r"that file|isn't a file of machine export"):
            read(bytes(raw))


def test_a_bomb_takes_no_memory() -> None:
    """64 MiB of zeros in 64 KiB: blocks come one at a time."""
    raw = gzip.compress(header(64 << 20) + bytes(64 << 20) + bytes(1024))
    [member] = tarstream.members(io.BufferedReader(io.BytesIO(raw)))
    assert member.size == 64 << 20
    source = io.BufferedReader(io.BytesIO(raw))
    [largest] = [max(map(len, member.blocks())) for member in tarstream.members(source)]
    assert largest <= tarstream.BLOCK


def test_a_text_is_limited() -> None:
    source = io.BufferedReader(io.BytesIO(header(1 << 40)))
    with pytest.raises(MachineError, match="of 1099511627776 bytes"):
        next(tarstream.members(source)).content(1 << 20)


def is_read_or_refused(raw: bytes) -> bool:
    """Whether it is no other error, and one that can be shown."""
    try:
        read(raw)
    except MachineError as error:
        return error.message.isprintable()
    return True


@given(st.binary(max_size=3000), st.booleans())
def test_whatever_comes_is_read_or_refused(raw: bytes, zip: bool) -> None:
    assert is_read_or_refused(gzip.compress(raw) if zip else raw)


@given(st.data())
def test_a_good_tar_with_a_few_other_bytes(data: st.DataObject) -> None:
    raw = bytearray(tar(FILES[:2], {}))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=5)):
        raw[at] = data.draw(st.integers(0, 255))
    assert is_read_or_refused(bytes(raw))

"""Empties the tables of names that Go programs offer to plugins: machineos has no plugins in Go.

Debian links dockerd, containerd and its shim with --export-dynamic, so that each holds the names of all its functions
(30 MB in the three; a tenth of the ISO, compressed). Only a Go plugin could ask for a name with a dot, which the names
of Go have and those of C can't have. The names that C libraries may ask for stay, and so does each address, so the
program runs as before (System V ABI, chapter 5; the hash table is GNU's, as glibc's dl-lookup.c reads it).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from .elf import PT_DYNAMIC, PT_INTERP, PT_LOAD, header, is_elf

DT_NEEDED, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_STRSZ = 1, 2, 5, 6, 7, 8, 10
DT_SONAME, DT_RPATH, DT_JMPREL, DT_RUNPATH = 14, 15, 23, 29
DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED, DT_VERNEEDNUM = (
    0x6FFFFEF5,
    0x6FFFFFF0,
    0x6FFFFFFC,
    0x6FFFFFFE,
    0x6FFFFFFF,
)
SYMBOL = 24  # bytes of an entry: name, info, other, section, value, size
RELOCATION = 24
NAME_OF_C = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Tables:
    """data: the file; tags: of its dynamic section, with offsets in the file where the section has addresses."""

    data: bytearray
    tags: dict[int, int]
    names_used: frozenset[int]

    @property
    def first(self) -> int:
        """The first symbol that the hash table holds; those before it are what the program asks others for."""
        return int(struct.unpack_from("<I", self.data, self.tags[DT_GNU_HASH] + 4)[0])

    def name(self, symbol: int) -> bytes:
        begin = self.tags[DT_STRTAB] + struct.unpack_from("<I", self.data, self.tags[DT_SYMTAB] + symbol * SYMBOL)[0]
        return bytes(self.data[begin : self.data.index(b"\0", begin)])


def empty(path: Path) -> int:
    """Rewrite a program without the names that only Go plugins can ask for; return how many these were.

    Other files, and programs that this module doesn't understand, stay as they are: 0.
    """
    if not is_elf(path) or (tables := read(path)) is None:
        return 0
    total = count(tables)
    used = {symbol for _, symbol in relocations(tables)}
    kept = [
        symbol for symbol in range(tables.first, total) if symbol in used or NAME_OF_C.fullmatch(tables.name(symbol))
    ]
    gone = total - tables.first - len(kept)
    if gone == 0:
        return 0
    write(tables, kept, total)
    mode = path.stat().st_mode
    path.write_bytes(tables.data)
    path.chmod(mode)
    return gone


def read(path: Path) -> Tables | None:
    """The tables of a program; None for a library, a static program, and one with other tables than Debian's have."""
    data = bytearray(path.read_bytes())
    start, size, number = header(data)
    segments = [struct.unpack_from("<IIQQQQQQ", data, start + at * size) for at in range(number)]
    loads = [(vaddr, offset, length) for kind, _, offset, vaddr, _, length, *_ in segments if kind == PT_LOAD]
    dynamic = [(offset, length) for kind, _, offset, _, _, length, *_ in segments if kind == PT_DYNAMIC]
    if not dynamic or not any(segment[0] == PT_INTERP for segment in segments):
        return None
    tags: dict[int, int] = {}
    names: set[int] = set()
    for at in range(dynamic[0][0], sum(dynamic[0]), 16):
        tag, value = struct.unpack_from("<QQ", data, at)
        if tag in (DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH):
            names.add(value)
        elif tag in (DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_GNU_HASH, DT_VERSYM, DT_VERNEED):
            value = next(offset + value - vaddr for vaddr, offset, length in loads if vaddr <= value < vaddr + length)
        tags[tag] = value
    if DT_VERDEF in tags or not {DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_GNU_HASH, DT_VERSYM} <= tags.keys():
        return None
    return Tables(data, tags, frozenset(names | names_of_versions(data, tags)))


def names_of_versions(data: bytearray, tags: dict[int, int]) -> set[int]:
    """Where the names of the libraries' versions begin ("GLIBC_2.34"), and those of the libraries."""
    names: set[int] = set()
    at = tags.get(DT_VERNEED, 0)
    for _ in range(tags.get(DT_VERNEEDNUM, 0)):
        _, versions, file, first, following = struct.unpack_from("<HHIII", data, at)
        names.add(file)
        version = at + first
        for _ in range(versions):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, version)
            names.add(name)
            version += step
        at += following
    return names


def count(tables: Tables) -> int:
    """How many symbols there are: the last chain of the hash table ends with the last of them."""
    data, at = tables.data, tables.tags[DT_GNU_HASH]
    buckets, first, blooms, _ = struct.unpack_from("<IIII", data, at)
    lists = at + 16 + blooms * 8
    symbol = max(struct.unpack_from(f"<{buckets}I", data, lists))
    if symbol < first:
        return int(first)
    chains = lists + buckets * 4
    while not struct.unpack_from("<I", data, chains + (symbol - first) * 4)[0] & 1:
        symbol += 1
    return int(symbol) + 1


def relocations(tables: Tables) -> list[tuple[int, int]]:
    """The relocations that name a symbol: where the number of the symbol lies in the file, and the number."""
    found = []
    for where, size in ((DT_RELA, DT_RELASZ), (DT_JMPREL, DT_PLTRELSZ)):
        begin = tables.tags.get(where, 0)
        part = tables.data[begin : begin + tables.tags.get(size, 0) // RELOCATION * RELOCATION]
        entries = struct.iter_unpack("<QIIq", part)
        found += [(begin + at * RELOCATION + 12, symbol) for at, (_, _, symbol, _) in enumerate(entries) if symbol]
    return found


def write(tables: Tables, kept: list[int], total: int) -> None:
    """Move the kept symbols to the table's end, as the hash table wants them, and blank the others and their names."""
    data, tags, first = tables.data, tables.tags, tables.first
    buckets = max(1, len(kept) // 4)
    hashes = {symbol: gnu_hash(tables.name(symbol)) for symbol in kept}
    kept = sorted(kept, key=lambda symbol: hashes[symbol] % buckets)
    moved = {symbol: number for number, symbol in enumerate(kept, start=total - len(kept))}
    for where, symbol in relocations(tables):
        struct.pack_into("<I", data, where, moved.get(symbol, symbol))
    for table, size in ((tags[DT_SYMTAB], SYMBOL), (tags[DT_VERSYM], 2)):
        entries = [data[table + symbol * size : table + (symbol + 1) * size] for symbol in kept]
        blank = bytes((total - first - len(kept)) * size)
        data[table + first * size : table + total * size] = blank + b"".join(entries)
    write_hash(tables, [hashes[symbol] for symbol in kept], buckets, total)
    symbols = memoryview(data)[tags[DT_SYMTAB] : tags[DT_SYMTAB] + total * SYMBOL]
    used = tables.names_used | {name for name, *_ in struct.iter_unpack("<IBBHQQ", symbols)}
    symbols.release()
    strings = bytes(data[tags[DT_STRTAB] : tags[DT_STRTAB] + tags[DT_STRSZ]])
    left = bytearray(len(strings))
    for begin in used:
        end = strings.index(b"\0", begin)
        left[begin:end] = strings[begin:end]
    data[tags[DT_STRTAB] : tags[DT_STRTAB] + len(left)] = left


def write_hash(tables: Tables, hashes: list[int], buckets: int, total: int) -> None:
    """hashes: of the last symbols of the table, in their order. The new table has one Bloom word, which lets all by."""
    data, at, begin = tables.data, tables.tags[DT_GNU_HASH], total - len(hashes)
    _, _, blooms, _ = old = struct.unpack_from("<IIII", data, at)
    space = 16 + blooms * 8 + old[0] * 4 + (total - old[1]) * 4
    heads = [0] * buckets
    for number, value in reversed(list(enumerate(hashes))):
        heads[value % buckets] = begin + number
    ends = [
        number + 1 == len(hashes) or hashes[number + 1] % buckets != value % buckets
        for number, value in enumerate(hashes)
    ]
    chains = [value & ~1 | end for value, end in zip(hashes, ends, strict=True)]
    head = struct.pack("<IIIIQ", buckets, begin, 1, 0, (1 << 64) - 1)
    table = head + struct.pack(f"<{buckets}I{len(chains)}I", *heads, *chains)
    data[at : at + space] = table + bytes(space - len(table))


def gnu_hash(name: bytes) -> int:
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value

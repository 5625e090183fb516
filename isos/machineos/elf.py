"""Reads from an ELF file which shared libraries a program needs (System V ABI, chapter 5)."""

from __future__ import annotations

import struct
from pathlib import Path

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5


def needed(path: Path) -> list[str]:
    """The names of the libraries and of the loader that a 64-bit little-endian ELF file needs; [] for other files."""
    if not is_elf(path):
        return []
    data = path.read_bytes()
    offset, size, count = header(data)
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + number * size) for number in range(count)]
    loads = [(vaddr, start, length) for kind, _, start, vaddr, _, length, *_ in segments if kind == PT_LOAD]
    names = [Path(text(data, start)).name for kind, _, start, *_ in segments if kind == PT_INTERP]
    for kind, _, start, _, _, length, *_ in segments:
        if kind == PT_DYNAMIC:
            names += dynamic_names(data, start, length, loads)
    return names


def is_elf(path: Path) -> bool:
    """Whether it is a 64-bit little-endian ELF file."""
    with path.open("rb") as file:
        return file.read(6) == b"\x7fELF\x02\x01"


def header(data: bytes | bytearray) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return offset, size, count


def dynamic_names(data: bytes, start: int, length: int, loads: list[tuple[int, int, int]]) -> list[str]:
    entries: list[tuple[int, int]] = []
    for position in range(start, start + length, 16):
        tag, value = struct.unpack_from("<QQ", data, position)
        if tag == DT_NULL:
            break
        entries.append((tag, value))
    address = next((value for tag, value in entries if tag == DT_STRTAB), 0)
    strings = next((address - vaddr + at for vaddr, at, size in loads if vaddr <= address < vaddr + size), 0)
    return [text(data, strings + value) for tag, value in entries if tag == DT_NEEDED]


def text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()

"""Read the log of a serial console: its end, and new lines, without control sequences for the reader's terminal."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 65536
PAUSE = 0.2

# ECMA-48: CSI sequences, strings (OSC, DCS, SOS, PM, APC) up to their terminator, other escapes; in both encodings.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b(?=\x1b)|\x1b[ -/]+[0-~]|\x1b(?![\[\]PX^_])[0-~]"
)
# The beginning of a sequence; its rest may come with the next block.
_BEGUN = re.compile(r"(?:\x1b|\x9b|[\x9d\x90\x98\x9e\x9f])[^\n]{0,256}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# The lines that machineos's own scripts print (`say` in its lib.sh).
_SAID = re.compile(r"^machineos: \[ *[\d.]+\] ([^\r\n]*)\r?$", re.MULTILINE)
_BOOTS, _WARNING = "init is up", "warning: "
# What the guest says when warnings that begin so hold no more.
_SETTLED = {"own settings are right": "sysctl ", "the host's folders answer again": "the host's folder"}
# One of the warnings: a folder that should be shared, and why it isn't.
_NO_FOLDER = re.compile(r"the host's folder (\S+) could not be mounted: ?(.*)")


class Cleaner:
    """Removes terminal control sequences from text that comes in pieces; keeps newline and tab."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str, *, last: bool = False) -> str:
        text = _SEQUENCE.sub("", self._held + text)
        begun = None if last else _BEGUN.search(text)
        self._held = text[begun.start() :] if begun else ""
        return _CONTROL.sub("", text[: begun.start()] if begun else text)


def clean(text: str) -> str:
    """A printable form of any text: of a guest, a server, a stranger's file."""
    return Cleaner().feed(text, last=True)


def warnings(path: Path) -> list[str]:
    """The warnings of the guest's own scripts since it booted that still hold: lines that they marked as such."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return []
    found: dict[str, None] = {}
    for match in _SAID.finditer(text):
        if match[1] == _BOOTS:
            found = {}
        elif settled := _SETTLED.get(match[1]):
            found = {line: None for line in found if not line.startswith(settled)}
        elif match[1].startswith(_WARNING):
            found[clean(match[1].removeprefix(_WARNING))] = None
    return list(found)


def folders(path: Path) -> dict[str, str]:
    """The shared folders that the guest couldn't mount since it booted, each with the reason."""
    from machine.folders import mount_spec  # 6 ms, and every error is cleaned by this module

    matches = filter(None, map(_NO_FOLDER.fullmatch, warnings(path)))
    return {mount_spec.unescaped(match[1]): match[2] for match in matches}


def read(path: Path, lines: int | None = None) -> Iterator[bytes]:
    """The file from its last lines on (None: all of it), in blocks. Raises FileNotFoundError."""
    with path.open("rb") as file:
        _seek(file, lines)
        while block := file.read(BLOCK):
            yield block


def follow(path: Path, lines: int | None = None) -> Iterator[bytes]:
    """As `read`, and then new text until the folder is removed; yields b"" while there is nothing new.

    When the file is replaced (at the machine's next start), the new one is read from its beginning.
    """
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            if not path.parent.exists():
                return
            yield b""
            time.sleep(PAUSE)
            continue
        with file:
            _seek(file, lines)
            lines = None
            yield from _until_replaced(file, path)


def _until_replaced(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while True:
        replaced = _is_replaced(file, path)
        while block := file.read(BLOCK):
            yield block
        if replaced:
            return
        yield b""
        time.sleep(PAUSE)


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return not path.parent.exists()  # else it was moved away, and the new one isn't there yet
    return there.st_ino != os.fstat(file.fileno()).st_ino or there.st_size < file.tell()


def _seek(file: BinaryIO, lines: int | None) -> None:
    """Seek to the beginning of the last lines."""
    if lines is None:
        return
    end = file.seek(0, os.SEEK_END)
    if not lines:
        return
    # The newline at the very end ends the last line, and doesn't begin another.
    end, left = max(0, end - 1), lines
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        block = file.read(end - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            left -= 1
            if not left:
                file.seek(start + at + 1)
                return
        end = start
    file.seek(0)

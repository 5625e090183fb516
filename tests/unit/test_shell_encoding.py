"""What a shell reads back of a path, on Windows by the code page of its console."""

from __future__ import annotations

import io
import locale
import os
import sys
from collections.abc import Callable

import pytest

from machine import shells
from machine.cli import shell_encoding
from machine.errors import MachineError


def said(text: str, monkeypatch: pytest.MonkeyPatch, character: Callable[[str], str] | None = None) -> bytes:
    raw = io.BytesIO()
    # Of a pipe, whose encoding on Windows is the one of programs without a console.
    pipe = io.TextIOWrapper(raw, encoding="cp1252", newline="\n")
    monkeypatch.setattr(sys, "stdout", pipe)
    shell_encoding.say(text, character)
    pipe.flush()
    return raw.getvalue()


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("SHELL", "MSYSTEM"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environ", "page", "encoding"),
    [
        ({}, 850, "cp850"),
        ({}, 932, "cp932"),
        ({}, 65001, "utf-8"),
        ({}, 0, locale.getpreferredencoding(False)),
        ({"MSYSTEM": "MINGW64"}, 850, "utf-8"),
        ({"SHELL": "/usr/bin/bash"}, 850, "utf-8"),
    ],
)
def test_the_encoding(environ: dict[str, str], page: int, encoding: str) -> None:
    assert shell_encoding.encoding(environ, page) == encoding


def test_a_pipe_has_the_encoding_of_the_console(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_encoding, "_code_page", lambda: 850)
    assert said("C:\\Users\\Jürgen", monkeypatch) == "C:\\Users\\Jürgen\n".encode("cp850")


def test_what_the_console_doesnt_have_is_said(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement would give a wrong path, which nobody notices."""
    monkeypatch.setattr(shell_encoding, "_code_page", lambda: 850)
    with pytest.raises(MachineError, match=r"\(cp850\) doesn't have ł") as caught:
        said("C:\\Users\\Paweł", monkeypatch)
    assert "chcp 65001" in caught.value.hint


def test_powershell_gets_what_the_console_doesnt_have(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its strings may name characters, beyond 16 bits by two."""
    monkeypatch.setattr(shell_encoding, "_code_page", lambda: 850)
    line = shells.find("powershell").set("A", "ü Ł 😀")
    expected = '$Env:A = "ü $([char]0x0141) $([char]0xD83D)$([char]0xDE00)"\n'
    assert said(line, monkeypatch, shells.find("powershell").character) == expected.encode("cp850")


def test_elsewhere_a_path_is_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert said(os.fsdecode(b"/srv/\xff/\xc5\x82"), monkeypatch) == b"/srv/\xff/\xc5\x82\n"

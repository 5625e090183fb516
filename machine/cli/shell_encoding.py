"""Printing what a shell reads back: the characters that arrive there are those of the paths.

On POSIX a shell takes bytes, and a path need not be text. On Windows PowerShell and cmd decode what a command prints by
the code page of their console; Git Bash and its kin, which set $SHELL or $MSYSTEM, take UTF-8.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Mapping

from machine.errors import MachineError


def say(text: str, character: Callable[[str], str] | None = None) -> None:
    """Print text. Raises MachineError for characters that the console's code page doesn't have.

    character: writes such a one otherwise, where the shell has a way.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.platform != "win32":
            sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
        elif not sys.stdout.isatty():  # to the console itself Python writes any character
            sys.stdout.reconfigure(encoding=encoding(os.environ, _code_page()), errors="strict")
            if character:
                text = "".join(one if _fits(one, sys.stdout.encoding) else character(one) for one in text)
    try:
        print(text)
    except UnicodeEncodeError as error:
        lacking = "".join(sorted(set(error.object[error.start : error.end])))
        raise MachineError(
            f"the console's code page ({sys.stdout.encoding}) doesn't have {lacking}, which the store's path needs",
            hint="chcp 65001; in PowerShell: [Console]::OutputEncoding = [Text.Encoding]::UTF8",
        ) from error


def _fits(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def encoding(environ: Mapping[str, str], code_page: int) -> str:
    """How a shell of Windows decodes what a command prints. code_page: its console's, 0 where it has none."""
    if environ.get("SHELL") or environ.get("MSYSTEM"):
        return "utf-8"
    try:
        return codecs.lookup(f"cp{code_page}").name
    except LookupError:
        import locale

        return locale.getpreferredencoding(False)


def _code_page() -> int:
    if sys.platform != "win32":
        return 0
    import ctypes

    return int(ctypes.windll.kernel32.GetConsoleOutputCP())

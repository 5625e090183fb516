"""The only caller of subprocess."""

from __future__ import annotations

import contextlib
import locale
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from machine.errors import ToolFailed, ToolMissing, WaitTimeout
from machine.switches import is_on

# Without this flag, a process without a console (a machine's helper) would open one for each command that it runs.
_NO_WINDOW = 0
if sys.platform == "win32":
    _NO_WINDOW = subprocess.CREATE_NO_WINDOW

debug = is_on("MACHINE_DEBUG")


@dataclass(frozen=True)
class Completed:
    argv: list[str]
    code: int
    stdout: str
    stderr: str


class Run(Protocol):
    """The function with which a driver runs commands; `run` below is the real one."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Completed: ...


def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a command to its end and return what it printed.

    input: its standard input, empty when None; timeout in seconds; env is added to our environment.
    Raises ToolMissing when the program doesn't exist, ToolFailed when check is true and the command ends with an error,
    WaitTimeout when the timeout passes (the command is then killed).
    """
    words = _words(argv)
    try:
        done = subprocess.run(
            words,
            input=input if input is not None else b"",
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=_environment(env),
            check=False,
            creationflags=_NO_WINDOW,
        )
    except FileNotFoundError as error:
        raise _not_found(words, cwd) from error
    except subprocess.TimeoutExpired as error:
        raise WaitTimeout(f"{words[0]} to end", timeout or 0, details=f"$ {shlex.join(words)}") from error
    completed = Completed(words, done.returncode, _text(done.stdout), _text(done.stderr))
    if check and completed.code != 0:
        raise ToolFailed(words, completed.code, completed.stderr or completed.stdout)
    return completed


def stream(argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Completed:
    """Run a command on our own terminal (ssh, scp) and return its exit code; its output isn't captured."""
    words = _words(argv)
    try:
        code = subprocess.run(words, cwd=cwd, env=_environment(env), check=False).returncode
    except FileNotFoundError as error:
        raise _not_found(words, cwd) from error
    return Completed(words, code, "", "")


def detach(
    argv: Sequence[str | Path], *, output: IO[bytes], cwd: Path | None = None, connection: socket.socket | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that outlives us, in its own session. connection: its standard input, which is empty else."""
    words = _words(argv)
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if connection is None else connection.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,  # on Windows without a meaning: the flags are what counts there
            creationflags=flags,
        )
    except FileNotFoundError as error:
        raise _not_found(words, cwd) from error


@contextlib.contextmanager
def held(argv: Sequence[str | Path]) -> Iterator[int]:
    """A command that prints a line when it is ready, and ends with its standard input. Yields its process id.

    Raises ToolMissing, and ToolFailed when it ends without a line.
    """
    words = _words(argv)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment(None))
    except FileNotFoundError as error:
        raise _not_found(words, None) from error
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        if not process.stdout.readline():
            said = _text(process.stderr.read())
            raise ToolFailed(words, process.wait(), said)
        try:
            yield process.pid
        finally:
            process.stdin.close()


def which(*tools: str) -> str | None:
    """The first of the tools that is on PATH."""
    return next((path for tool in tools if (path := shutil.which(tool))), None)


def _words(argv: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in argv]
    if debug:
        print(f"$ {shlex.join(words)}", file=sys.stderr)
    return words


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    # We parse tools' messages, so they must not be translated.
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def _text(raw: bytes) -> str:
    """A tool's output with LF as line ends: VBoxManage.exe prints CR and LF."""
    return _decoded(raw).replace("\r\n", "\n")


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # Windows' tools print names in the system's code page; paths in their output must remain valid.
        return raw.decode(locale.getpreferredencoding(False) if sys.platform == "win32" else "utf-8", "replace")


def _not_found(words: list[str], cwd: Path | None) -> ToolMissing | NotADirectoryError:
    if cwd is not None and not cwd.is_dir():
        return NotADirectoryError(f"no such folder: {cwd}")
    return ToolMissing(words[0])

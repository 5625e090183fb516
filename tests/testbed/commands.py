"""Commands run to their end or at work in the background, on a terminal, and what they said."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

BEGAN = time.monotonic()
# Seconds. Others may use this host's processors, so a deadline is far more than what a thing takes.
COMMAND = 240.0
CREATE = 540.0
HEARTBEAT = 30.0
# The last two: requests (docker-py, docker-compose) then believes that bundle, and not the CA of DOCKER_CERT_PATH.
_STEERING = ("DOCKER_", "MACHINE_", "COMPOSE_", "QEMU_", "ENGINE_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

voice: Callable[[str], None] = print  # the tests put one in its place that pytest doesn't capture


def say(text: str) -> None:
    """Tell who watches what is done now."""
    voice(text)


@dataclass(frozen=True)
class Done:
    argv: list[str]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __str__(self) -> str:
        return f"$ {' '.join(self.argv)}\nexit code {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


class Options(TypedDict, total=False):
    """How `execute` runs a command."""

    env: dict[str, str]
    input: bytes | None
    code: int | None
    timeout: float
    cwd: Path | None


def environment(**extra: str) -> dict[str, str]:
    """Ours, without anything that steers machine, docker or compose, and without proxies."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_STEERING) and not key.lower().endswith("_proxy")
    }
    return {**kept, "LC_ALL": "C.UTF-8", **extra}


def execute(
    argv: Sequence[str | Path],
    *,
    env: dict[str, str],
    input: bytes | None = None,
    code: int | None = 0,
    timeout: float = COMMAND,
    cwd: Path | None = None,
) -> Done:
    """Run a command to its end; it must end with that exit code (None: any) within timeout seconds."""
    words = [str(word) for word in argv]
    began = time.monotonic()
    # Files: a process that a killed command leaves behind would keep pipes open, and us waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as stdin:
        stdin.write(input or b"")
        stdin.seek(0)
        with subprocess.Popen(words, env=env, stdin=stdin, stdout=out, stderr=err, cwd=cwd) as process:
            ended = _wait(process, words, timeout)
        out.seek(0)
        err.seek(0)
        said, complained = (file.read().decode("utf-8", "replace") for file in (out, err))
    done = Done(words, process.returncode, said, complained, time.monotonic() - began)
    assert ended, f"no end within {timeout:.0f} s: {done}"
    assert code is None or done.code == code, str(done)
    return done


def _wait(process: subprocess.Popen[bytes], words: list[str], timeout: float) -> bool:
    began = time.monotonic()
    while (left := timeout - (time.monotonic() - began)) > 0:
        try:
            process.wait(min(HEARTBEAT, left))
        except subprocess.TimeoutExpired:
            say(f"{time.monotonic() - began:.0f} s: {' '.join(words)[:100]}")
        except BaseException:
            process.kill()
            raise
        else:
            return True
    process.kill()
    return False


def until(probe: Callable[[], object], what: str, timeout: float = 60.0) -> float:
    """Wait until probe returns something true; returns the seconds that it took."""
    began = shown = time.monotonic()
    while not probe():
        now = time.monotonic()
        assert now - began < timeout, f"{what}: not within {timeout:.0f} s"
        if now - shown > HEARTBEAT:
            say(f"{now - began:.0f} s: waiting for {what}")
            shown = now
        time.sleep(0.05)
    return time.monotonic() - began


class Begun:
    """A command at work."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.argv = argv
        self.out = tempfile.TemporaryFile()  # noqa: SIM115
        self.err = tempfile.TemporaryFile()  # noqa: SIM115
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, start_new_session=True
        )

    def text(self) -> str:
        """What it has written to stderr."""
        return os.pread(self.err.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def output(self) -> str:
        return os.pread(self.out.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def says(self, text: str, timeout: float = 120.0) -> None:
        """Wait until it has written that to stderr."""
        until(lambda: text in self.text() or self.process.poll() is not None, f'"{text}"', timeout)
        assert text in self.text(), f"it ended with {self.process.poll()}: {self.text()}"

    def interrupt(self) -> None:
        """Ctrl-C reaches every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, timeout: float = 120.0) -> Done:
        assert _wait(self.process, self.argv, timeout), f"no end within {timeout:.0f} s: {self.text()}"
        return Done(self.argv, self.process.returncode, self.output(), self.text(), time.monotonic() - self.began)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()


# Make standard input the terminal of this session, and become the command.
_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def in_terminal(argv: Sequence[str], typed: bytes, *, env: dict[str, str], timeout: float = COMMAND) -> tuple[int, str]:
    """Run a command on a pseudo-terminal and type into it; its exit code and what it showed."""
    import pty

    terminal, slave = pty.openpty()
    # Not pty.fork(): a process with threads, as that of the tests, isn't to be copied.
    words = [sys.executable, "-c", _TAKE_TERMINAL, *argv]
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
    os.close(slave)
    shown, deadline = b"", time.monotonic() + timeout
    try:
        os.write(terminal, typed)
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    block = os.read(terminal, 65536)
                except OSError:  # Linux's way to say that the other end is closed
                    break
                if not block:
                    break
                shown += block
        else:
            process.kill()
    finally:
        process.wait()
        os.close(terminal)
    return process.returncode, shown.decode("utf-8", "replace")

"""The folder with a Windows in it, and programs run there."""

from __future__ import annotations

import contextlib
import os
import platform
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER_VARIABLE = "MACHINE_TEST_WINDOWS"
# Its Debian packages are in .ci/packages.
TOOLS = ("wine", "wineserver", "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-windres", "x86_64-w64-mingw32-objdump")
# Seconds. A start of Python takes 1 s on an idle host, and 6 s on a busy one.
COMMAND = 240.0
ENDING = 30.0
# What is for another system's Python, for its shell and its screen, or steers what is tested.
_FOREIGN = {"SHELL", "VIRTUAL_ENV", "DISPLAY", "WAYLAND_DISPLAY", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANGUAGE", "TMPDIR"}
_FOREIGN_BEGINNINGS = ("PYTHON", "PYTEST_", "PYENV_", "LC_", "DOCKER_", "MACHINE_", "COMPOSE_", "VBOX_", "MSYS")


class Amiss(Exception):
    """Wine, or what makes the rig, doesn't work: nothing is known of the product then."""


def why_not() -> str:
    """Why there can be no rig here, "" when there can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "Windows' programs run under Wine, on Linux on x86_64"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no Wine to test Windows with: {', '.join(missing)} not found; .ci/requirements windows installs them"
    return ""


def windows_path(path: Path) -> str:
    """What a Windows program calls a file of this host: Wine's drive Z: is /."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


@dataclass(frozen=True)
class Ended:
    argv: list[str]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __str__(self) -> str:
        return f"> {' '.join(self.argv)}\nexit code {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


@dataclass(frozen=True)
class Rig:
    """variables: environment variables for all that runs there, beside those that Wine needs."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> Path:
        return self.folder / "prefix"

    @property
    def python_folder(self) -> Path:
        return self.prefix / "drive_c" / "Python"

    @property
    def guests(self) -> Path:
        """The process ids of the guests that run, a file each: what the stand-in's guest.py writes."""
        return self.folder / "guests"

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in _FOREIGN
            and not name.startswith(_FOREIGN_BEGINNINGS)
            and not name.lower().endswith(("_proxy", "_ca_bundle"))
        }
        wine = {
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            # Else Wine asks for Mono and Gecko.
            "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
            # Wine takes file names by the locale. Python's code page is 1252 all the same.
            "LC_ALL": "C.UTF-8",
        }
        return {**kept, **wine, **self.variables, **extra}

    def python(self, *words: str | Path, **options: object) -> Ended:
        return self.run(self.python_folder / "python.exe", *words, **options)  # type: ignore[arg-type]

    def machine(self, *words: str | Path, **options: object) -> Ended:
        return self.python("-P", "-m", "machine", *words, **options)

    def run(
        self,
        program: str | Path,
        *words: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        code: int | None = 0,
        timeout: float = COMMAND,
        console: bool = False,
        encoding: str = "utf-8",
    ) -> Ended:
        """Run a program to its end; it must end with that exit code (None: any) within timeout seconds.

        console: it has one (of code page 437, on a pseudo-terminal as its input). encoding: of what it prints.
        """
        argv = [str(program), *map(str, words)]
        began = time.monotonic()
        # Wine takes no plain files; a helper that goes on keeps the pipes, whose end therefore nobody waits for.
        out, err = _Pump(), _Pump()
        with _input(console) as stdin:
            try:
                process = subprocess.Popen(
                    ["wine", *argv],
                    stdin=stdin,
                    stdout=out.write,
                    stderr=err.write,
                    env=self.environment(**(env or {})),
                    cwd=cwd,
                )
            finally:
                os.close(out.write)
                os.close(err.write)
            try:
                process.wait(timeout)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
            finally:
                process.kill()
                process.wait()
        done = Ended(argv, process.returncode, out.text(encoding), err.text(encoding), time.monotonic() - began)
        assert ended, f"no end within {timeout:.0f} s: {done}"
        assert code is None or done.code == code, str(done)
        return done

    def stop(self) -> None:
        """End all that runs in this prefix, and the guests: nothing of another one."""
        for option in ("-k", "-w"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["wineserver", option],
                    env=self.environment(),
                    check=False,
                    timeout=ENDING,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        for file in self.guests.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                _end(int(file.read_text(encoding="utf-8")))
            file.unlink(missing_ok=True)


def _end(pid: int) -> None:
    """End a guest, if the number still is one's."""
    if b"guest.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
        os.kill(pid, signal.SIGTERM)


@contextlib.contextmanager
def _input(console: bool) -> Iterator[int]:
    if not console:
        yield subprocess.DEVNULL
        return
    ours, theirs = pty.openpty()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


class _Pump:
    """A pipe whose end `write` a program gets; it is read at once, so that who writes needn't wait."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.chunks: list[bytes] = []
        self.thread = threading.Thread(target=self._pump, daemon=True)
        self.thread.start()

    def _pump(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self.read, 1 << 16):
                self.chunks.append(chunk)
        os.close(self.read)

    def text(self, encoding: str) -> str:
        """What was written until the program ended."""
        # It is in the pipe by then; the pipe's end comes only with that of the last helper.
        self.thread.join(1)
        return b"".join(self.chunks).decode(encoding, "replace").replace("\r\n", "\n")

"""A host that a provisioner meets: its files, and what its commands do to it; every command is remembered."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from archives import content

from machine.docker.daemon import MACHINEOS, OPENRC, SYSTEMD
from machine.errors import ToolFailed
from machine.run import Completed
from machine.ssh.remote import Shell

MARKS, LOGS = zip(*((each.mark, each.log) for each in (MACHINEOS, SYSTEMD, OPENRC)), strict=True)
DATA = Path(__file__).parent.parent / "data" / "hosts"


class FakeHost:
    """transcript: a file of tests/data/hosts. Its lines: `$ COMMAND`, what that prints, `? CODE`; a command in it may
    end in `...`, which stands for anything. A command that isn't in it is an error. os-release comes from `NAME.os`.
    """

    def __init__(self, name: str) -> None:
        self.files = {"/etc/os-release": (DATA / f"{name}.os").read_text()}
        transcript = DATA / f"{name}.txt"
        self.answers = _parsed(transcript.read_text()) if transcript.exists() else []
        self.ran: list[str] = []
        self.installed = False
        self.fails = ""
        # What the daemon wrote since it was last looked at.
        self.log = ""

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        command = shlex.join(argv)
        if list(argv[:2]) == ["sh", "-c"] and (argv[2] in MARKS or argv[2] in LOGS):
            return Completed(list(argv), 0, self.log if argv[2] in LOGS else "0\n", "")
        self.ran.append(command)
        if self.fails and self.fails in command:
            raise ToolFailed(argv, 100, "no route to the mirror")
        if input and "apply-seed" in command:
            with tarfile.open(fileobj=io.BytesIO(input)) as archive:
                self.applied = {entry.name: content(archive, entry).decode() for entry in archive}
            return Completed(list(argv), 0, "", "")
        if "sha256sum" in command:
            text = "".join(self.files.get(path, "") for path in argv[4:])
            return Completed(list(argv), 0, f"{hashlib.sha256(text.encode()).hexdigest()}  -\n", "")
        code, out = self._answer(command)
        if check and code:
            raise ToolFailed(argv, code, out)
        return Completed(list(argv), code, out, "")

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.ran.append(f"write {path} {mode:o}")
        self.files[path] = text

    def _answer(self, command: str) -> tuple[int, str]:
        """The first answer that fits is used up, unless it is the last that does."""
        fitting = [answer for answer in self.answers if _fits(answer[0], command)]
        if not fitting:
            raise AssertionError(f"not in the transcript: {command}")
        if len(fitting) > 1:
            self.answers.remove(fitting[0])
        return fitting[0][1], fitting[0][2]


def _fits(pattern: str, command: str) -> bool:
    return command.startswith(pattern[:-3]) if pattern.endswith("...") else command == pattern


def _parsed(text: str) -> list[tuple[str, int, str]]:
    answers = []
    for part in ("\n" + text).split("\n$ ")[1:]:
        command, _, rest = part.partition("\n")
        out, _, code = rest.partition("? ")
        answers.append((command, int(code.split()[0]) if code else 0, out))
    return answers


def stand_in(monkeypatch: pytest.MonkeyPatch, host: object) -> None:
    """Let all that is run, read and written over SSH reach this host."""

    def of_host(name: str) -> Callable[..., object]:
        return lambda _, *args, **more: getattr(host, name)(*args, **more)

    for name in ("run", "read", "write"):
        monkeypatch.setattr(Shell, name, of_host(name))

"""What fixtures that many tests use give them: functions with options, described once, for mypy and for readers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypedDict, Unpack

from machine.paths import MachineFolder
from machine.spec import Machine


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Invoke(Protocol):
    """Run the command line in this process: invoke("ls", "-q")."""

    def __call__(self, *words: str | Path) -> Outcome: ...


class Spawn(Protocol):
    """Run the command line in a process of its own: spawn("ls", env={"SHELL": ""}, python=["-X", "importtime"])."""

    def __call__(
        self, *words: str | Path, env: dict[str, str] | None = None, python: tuple[str, ...] = ()
    ) -> Outcome: ...


class Ordinary(Protocol):
    """Run the command line as a user who isn't root: ordinary("ls", HOME="/nowhere")."""

    def __call__(self, *words: str | Path, **environment: str | None) -> Outcome: ...


class Pipes(TypedDict, total=False):
    """Options of a subprocess.Popen."""

    stdin: int | IO[Any]
    stdout: int | IO[Any]
    stderr: int | IO[Any]
    preexec_fn: Callable[[], object]


class Begin(Protocol):
    """Start the command line in a process of its own: begin("stop", "dev", stdin=subprocess.PIPE)."""

    def __call__(self, *words: str, **pipes: Unpack[Pipes]) -> subprocess.Popen[str]: ...


class Add(Protocol):
    """Put a machine of the driver `fake` into the store: add("web", state="Running", memory_mib=512)."""

    def __call__(self, name: str = "default", *, state: str = "Stopped", **fields: Any) -> Machine: ...


class Made(Protocol):
    """Put a machine of the driver `fake` into the store, with its keys, and give its folder: made("web")."""

    def __call__(self, name: str = "default", **fields: Any) -> MachineFolder: ...

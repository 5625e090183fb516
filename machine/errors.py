"""Every error that the user can meet.

    MachineError                1   one sentence, a hint (the next command to type), an exit code
    ├── Usage                   2   wrong usage
    ├── CheckFailed             3   a check failed before anything was written
    │   └── ToolMissing         3
    ├── ToolFailed                  a command ended with an error
    ├── MachineExists
    ├── NoSuchMachine
    ├── NotRunning
    ├── StoreDamaged                a file of the store can't be read, or was written by a newer version
    ├── ImageCorrupt
    ├── NoSuchImage
    ├── SSHFailed
    │   ├── HostKeyChanged
    │   └── SSHTimeout              also a WaitTimeout
    ├── DockerFailed
    │   └── EngineRefused           dockerd doesn't start with its settings
    ├── DriverFailed
    └── WaitTimeout

An error is one line on the screen, its details and its hint below it; `cli.main` is the only place that prints one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence


class MachineError(Exception):
    """What failed, in one sentence.

    details: lines that help to find the cause (a tool's stderr, the serial console).
    hint: what to do next, as a rule a command.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details.strip("\n")


class Usage(MachineError):
    exit_code = 2


class CheckFailed(MachineError):
    exit_code = 3


class ToolMissing(CheckFailed):
    def __init__(self, tool: str, *, hint: str = "") -> None:
        super().__init__(f"{tool} was not found", hint=hint or f"install {tool} and make sure that it is on PATH")
        self.tool = tool


class ToolFailed(MachineError):
    """A command ended with an error; code is negative when a signal ended it."""

    def __init__(self, argv: Sequence[str], code: int, stderr: str, *, hint: str = "") -> None:
        import shlex  # `env` does without

        last = stderr.strip().splitlines()[-1:] or [f"exit status {code}"]
        super().__init__(f"{argv[0]} failed: {last[0]}", hint=hint, details=f"$ {shlex.join(argv)}\n{stderr}")
        self.argv = list(argv)
        self.code = code
        self.stderr = stderr


class MachineExists(MachineError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f'Docker machine "{name}" already exists',
            hint=f"machine start {name}",
        )


class NoSuchMachine(MachineError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f'Docker machine "{name}" does not exist',
            hint="machine ls",
        )


class NotRunning(MachineError):
    def __init__(self, name: str) -> None:
        super().__init__(f'machine "{name}" is not running', hint=f"machine start {name}")


class StoreDamaged(MachineError):
    pass


class ImageCorrupt(MachineError):
    pass


class NoSuchImage(MachineError):
    pass


class SSHFailed(MachineError):
    pass


class HostKeyChanged(SSHFailed):
    """The server has another key than the pinned one. Waiting doesn't help."""


class DockerFailed(MachineError):
    pass


class EngineRefused(DockerFailed):
    """dockerd refuses its settings; words are dockerd's own."""

    def __init__(self, words: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(f"dockerd refuses its settings: {words}", hint=hint, details=details)
        self.words = words


class DriverFailed(MachineError):
    pass


class WaitTimeout(MachineError):
    """A deadline passed; what names the awaited thing."""

    def __init__(self, what: str, timeout: float, *, hint: str = "", details: str = "") -> None:
        super().__init__(f"timed out after {timeout:.0f} s waiting for {what}", hint=hint, details=details)
        self.what = what


class SSHTimeout(WaitTimeout, SSHFailed):
    """A command on a machine, or the way to it, took too long."""


@contextlib.contextmanager
def before_anything() -> Iterator[None]:
    """Give errors of the block the exit code of CheckFailed, except wrong usage: nothing was made yet."""
    try:
        yield
    except MachineError as error:
        if error.exit_code == MachineError.exit_code:
            error.exit_code = CheckFailed.exit_code
        raise

"""What OpenSSH's client writes with -E and LogLevel=DEBUG1: how far a connection came, and why it ended.

ssh's exit code tells little: 255 is a connection that failed, a command that a signal ended, and a command that ended
with 255. The log keeps its words apart from those of the command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LEVEL = "DEBUG1"
# Lines that say nothing of an error.
_NOISE = ("debug", "OpenSSH_", "Authenticated to ", "Authenticated using ", "Transferred: ", "Bytes per second: ")


@dataclass(frozen=True)
class Log:
    text: str

    @property
    def let_in(self) -> bool:
        return "Authenticated to " in self.text

    @property
    def has_status(self) -> bool:
        return "rtype exit-status" in self.text

    @property
    def has_signal(self) -> bool:
        return "rtype exit-signal" in self.text

    @property
    def is_refused(self) -> bool:
        """Whether the server let us in, and then opened no session or ran no command."""
        return "open failed:" in self.text or "request failed on channel" in self.text

    @property
    def errors(self) -> str:
        """The lines that tell of an error."""
        lines = [line.rstrip() for line in self.text.splitlines()]
        return "\n".join(line for line in lines if line and not line.startswith(_NOISE))


def read(path: Path) -> Log:
    """An empty log when ssh ended before it wrote one."""
    try:
        return Log(path.read_text("utf-8", "replace"))
    except FileNotFoundError:
        return Log("")

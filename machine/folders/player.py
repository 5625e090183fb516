"""The program in the guest that does there again what was done on the host (folder-events.c), over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine.errors import MachineError
from machine.folders import mount_spec
from machine.reasons import reason

if TYPE_CHECKING:
    import paramiko

    from machine.ssh.relay import Connection

PROGRAM = "/usr/lib/machineos/folder-events"
_MISSING = b"?"
# Seconds for an answer: in software emulation on a busy host a change takes a quarter of a second.
_PATIENCE = 300.0


class Player:
    """trouble: why the program doesn't run; is_missing: the guest hasn't got it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.trouble = ""
        self.is_missing = False
        self._channel: paramiko.Channel | None = None

    def open(self) -> bool:
        """Start it unless it runs. Returns whether that mended something. Raises SSHFailed."""
        if self._channel and not self._channel.closed and not self._channel.eof_received:
            return False
        self.close()
        command = (
            f"if [ -x {PROGRAM} ]; then exec sudo {PROGRAM} {mount_spec.REPLAY_UID}; else echo {_MISSING.decode()}; fi"
        )
        self._channel = self.connection.execute(command)
        self._channel.settimeout(_PATIENCE)
        self.play([])
        mended, self.trouble = bool(self.trouble), ""
        return mended

    def play(self, records: list[bytes]) -> None:
        """Return when the guest's programs have been told. Raises OSError."""
        if (channel := self._channel) is None:
            raise OSError("the connection ended")
        channel.sendall(b"".join(record + b"\0" for record in (*records, b"")))
        if (answer := channel.recv(1)) == _MISSING:
            self.is_missing = True
            raise OSError("the machine's system is older: machine upgrade")
        if not answer:
            raise OSError("the connection ended")

    def fail(self, error: Exception) -> None:
        self.close()
        self.trouble = why(error)

    def close(self) -> None:
        if self._channel:
            self._channel.close()
        self._channel = None


def why(error: Exception) -> str:
    return error.message if isinstance(error, MachineError) else reason(error)

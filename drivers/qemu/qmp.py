"""QEMU's monitor and its guest agent: JSON lines over a Unix socket.

A client of our own: a call is one line out and one line in, and the library `qemu.qmp` costs 34 ms to import (it brings
asyncio), as much as all of `machine status`. Protocol: QEMU's docs/interop/qmp-spec and qemu-ga-ref.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from machine.errors import DriverFailed
from machine.reasons import reason

from . import sockets


class NoMessage(DriverFailed):
    """A line that isn't a JSON object."""


class Connection:
    """A Unix socket that speaks JSON lines; every read has a deadline (seconds)."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self.path = path
        short = sockets.reach(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.timeout = timeout
        self.buffer = b""
        try:
            self.socket.connect(str(short))
        except OSError as error:
            self.socket.close()
            raise DriverFailed(f"QEMU doesn't answer on {path.name}: {reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: dict[str, object], *, prefix: bytes = b"") -> None:
        try:
            self.socket.sendall(prefix + json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise DriverFailed(f"QEMU closed {self.path.name}: {reason(error)}") from error

    def receive(self) -> dict[str, Any]:
        while b"\n" not in self.buffer:
            try:
                more = self.socket.recv(65536)
            except TimeoutError as error:
                raise DriverFailed(f"no answer on {self.path.name} within {self.timeout:g} s") from error
            except OSError as error:
                raise DriverFailed(f"QEMU closed {self.path.name}: {reason(error)}") from error
            if not more:
                raise DriverFailed(f"QEMU closed {self.path.name}")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        try:
            # What stands before 0xFF is the half line of an earlier client.
            answer = json.loads(line.rpartition(b"\xff")[2] or b"{}")
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise NoMessage(f"the program on {self.path.name} speaks another protocol", details=repr(line[:200]))
        return answer


class Qmp(Connection):
    """The monitor. Raises DriverFailed when QEMU doesn't answer or refuses a command.

    version: of QEMU, (major, minor), as its greeting says; (0, 0) where it doesn't.
    """

    def __init__(self, path: Path, *, timeout: float = 10) -> None:
        super().__init__(path, timeout=timeout)
        self._number = 0
        try:
            self.version = _version(self.receive())
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        self.send(self.message(command, **arguments))
        return self.answer(command)

    def message(self, command: str, **arguments: object) -> dict[str, object]:
        """A command with a number of its own, which QEMU repeats in its answer."""
        self._number += 1
        return {"execute": command, "id": self._number, **({"arguments": arguments} if arguments else {})}

    def answer(self, command: str) -> Any:
        """QEMU's answer to the last message.

        Events are passed over, and so is an answer that comes late, when its command was given up.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            answer = self.receive()
            # QEMU can't repeat the number of what it couldn't read.
            if "event" not in answer and answer.get("id", self._number) == self._number:
                if "error" in answer:
                    raise DriverFailed(f"QEMU refused {command}: {answer['error'].get('desc')}")
                return answer.get("return")
            if time.monotonic() > deadline:
                raise DriverFailed(f"no answer to {command} within {self.timeout:g} s")

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Let answers take so long meanwhile, if that is longer than usual."""
        before = self.timeout
        self.timeout = max(seconds, before)
        self.socket.settimeout(self.timeout)
        try:
            yield
        finally:
            self.timeout = before
            self.socket.settimeout(before)

    def human(self, line: str) -> str:
        """A command of the human monitor, for the few that QMP lacks (hostfwd_add); returns what it printed."""
        return str(self.execute("human-monitor-command", **{"command-line": line})).strip()


class GuestAgent(Connection):
    """qemu-guest-agent in the guest. Raises DriverFailed when it isn't there or doesn't answer."""

    def __init__(self, path: Path, *, timeout: float = 3) -> None:
        super().__init__(path, timeout=timeout)
        try:
            self._synchronise()
        except BaseException:
            self.close()
            raise

    def _synchronise(self) -> None:
        # The channel may hold half a line of an earlier client: 0xFF makes the agent drop it, and the answer to be
        # taken is the one that carries our number (qemu-ga-ref, guest-sync-delimited).
        number = time.monotonic_ns() & 0x7FFFFFFF
        self.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, prefix=b"\xff")
        while not self._answers(number):
            pass

    def _answers(self, number: int) -> bool:
        try:
            return bool(self.receive().get("return") == number)
        except NoMessage:
            return False

    def execute(self, command: str, **arguments: object) -> Any:
        self.send({"execute": command, **({"arguments": arguments} if arguments else {})})
        answer = self.receive()
        if "error" in answer:
            raise DriverFailed(f"the guest agent refused {command}: {answer['error'].get('desc')}")
        return answer.get("return")

    def run(self, command: str, *words: str, timeout: float) -> str:
        """Run a program of the guest and return what it printed. timeout in seconds.

        Raises DriverFailed when it ends with an error, too.
        """
        arguments = {"arg": list(words)} if words else {}
        pid = self.execute("guest-exec", path=command, **arguments, **{"capture-output": True})["pid"]
        deadline = time.monotonic() + timeout
        while not (status := self.execute("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > deadline:
                raise DriverFailed(f"{command} didn't end in the guest within {timeout:g} s")
            time.sleep(0.02)
        if status.get("exitcode") != 0:
            raise DriverFailed(f"{command} failed in the guest: {_decoded(status, 'err-data')}")
        return _decoded(status, "out-data")

    def set_time(self) -> None:
        """Set the guest's clock to the host's."""
        self.execute("guest-set-time", time=time.time_ns())


def _version(greeting: dict[str, Any]) -> tuple[int, int]:
    try:
        found = greeting["QMP"]["version"]["qemu"]
        return int(found["major"]), int(found["minor"])
    except (KeyError, TypeError, ValueError):
        return 0, 0


def _decoded(status: dict[str, Any], name: str) -> str:
    import base64

    return base64.b64decode(status.get(name, "")).decode("utf-8", "replace").strip()

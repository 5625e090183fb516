"""A QEMU monitor, or guest agent, on a real Unix socket: answers by a function, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loopback_sockets import listening, stop

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}
HANG_UP = object()
Answer = Callable[[dict[str, Any]], list[Any]]


class Server:
    """answer(message) returns the replies: objects become JSON lines, bytes are sent unchanged, HANG_UP ends."""

    def __init__(self, path: Path, answer: Answer, greeting: list[Any]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.raw = b""
        self.answer = answer
        self.greeting = greeting
        self.listener = listening(path)
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def commands(self) -> list[str]:
        return [message["execute"] for message in self.asked]

    def close(self) -> None:
        stop(self.listener)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(timeout=60)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
                    self._speak(connection, lines)

    def _speak(self, connection: socket.socket, lines: Any) -> None:
        _send(connection, self.greeting)
        for line in lines:
            self.raw += line
            message = json.loads(line.lstrip(b"\xff"))
            number = message.pop("id", None)
            self.asked.append(message)
            if not _send(connection, [_numbered(answer, number) for answer in self.answer(message)]):
                return


def _numbered(answer: Any, number: object) -> Any:
    """The answer with the number of its question, as QEMU gives it; one that has a number keeps it."""
    if number is None or not isinstance(answer, dict) or not answer.keys() & {"return", "error"}:
        return answer
    return {"id": number, **answer}


def _send(connection: socket.socket, answers: list[Any]) -> bool:
    for answer in answers:
        if answer is HANG_UP:
            return False
        connection.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
    return True


@contextlib.contextmanager
def monitor(path: Path, answers: dict[str, Any] | None = None, greeting: Any = GREETING) -> Iterator[Server]:
    """A monitor that returns answers[command]; a list is sent as it is, a function is called with the message."""

    def answer(message: dict[str, Any]) -> list[Any]:
        found = (answers or {}).get(message["execute"], {})
        found = found(message) if callable(found) else found
        return found if isinstance(found, list) else [{"return": found}]

    server = Server(path, answer, [greeting])
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def agent(path: Path, answer: Answer) -> Iterator[Server]:
    server = Server(path, answer, [])
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def channel(path: Path, answer: Callable[[bytes], bytes | object]) -> Iterator[list[bytes]]:
    """A channel of lines to a guest: yields those that came. answer makes the reply; HANG_UP closes, b"" is silence."""
    came: list[bytes] = []
    connections: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                with connection, connection.makefile("rb") as lines:
                    for line in lines:
                        came.append(line)
                        reply = answer(line)
                        if reply is HANG_UP:
                            connection.shutdown(socket.SHUT_RDWR)
                        elif isinstance(reply, bytes):
                            connection.sendall(reply)

    with listening(path) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield came
        finally:
            stop(listener)
            for connection in connections:
                stop(connection)
            thread.join(timeout=60)

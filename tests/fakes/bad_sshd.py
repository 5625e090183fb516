"""An SSH server that drops the connection, stalls, or lies, at a step that is chosen.

The steps before the login are spoken on the bare socket; those after it by paramiko's server.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
from loopback_sockets import stop

STEPS = ("banner", "kex", "auth", "open", "exec", "output", "status")
FAULTS = ("drop", "stall", "lie")
_LONGEST = 30.0


class BadServer(paramiko.ServerInterface):
    """reached: set when the step was come to. status: the exit status of a command that isn't to go wrong."""

    def __init__(self, step: str, fault: str, key: Path) -> None:
        self.step = step
        self.fault = fault
        self.status = 0
        self.executed = threading.Event()
        self.key = paramiko.Ed25519Key.from_private_key_file(str(key))
        self.reached = threading.Event()
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.transports: list[paramiko.Transport] = []
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                self.threads.append(threading.Thread(target=self._serve, args=[connection], daemon=True))
                self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if self.step in {"banner", "kex"}:
                self._before_keys(connection)
            else:
                self._with_keys(connection)

    def _before_keys(self, connection: socket.socket) -> None:
        if self.step == "kex":
            connection.sendall(b"SSH-2.0-bad\r\n")
            connection.recv(1)
        if self._goes_wrong(self.step, connection):
            # No server of SSH; a packet whose length is absurd.
            connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n" * 60 if self.step == "banner" else b"\xff" * 64)
            connection.settimeout(_LONGEST)
            while connection.recv(4096):
                pass
        connection.close()

    def _with_keys(self, connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        self.transports.append(transport)
        transport.add_server_key(self.key)
        transport.start_server(server=self)
        channel = None
        while not (channel or self.ended.is_set()):
            channel = transport.accept(0.1)
        if channel and self.executed.wait(_LONGEST) and not self.ended.is_set():
            self._answer(channel, connection)

    def _answer(self, channel: paramiko.Channel, connection: socket.socket) -> None:
        channel.sendall(b"half of ")
        channel.sendall_stderr(b"words\n")
        if self._goes_wrong("output", connection):
            connection.sendall(b"\xff" * 4096)  # no packet that anybody can decrypt
            # One time in sixteen it decrypts to a length that is possible: then the client waits for the rest.
            connection.shutdown(socket.SHUT_RDWR)
            return
        if self.step == "alive":
            self.ended.wait(_LONGEST)
            return
        channel.sendall(b"what is to be said\n")
        channel.shutdown_write()
        if self._goes_wrong("status", connection):
            message = paramiko.Message()  # exit-signal (RFC 4254, 6.10) in the place of a status
            message.add_byte(b"\x62")
            message.add_int(channel.remote_chanid)
            message.add_string("exit-signal")
            message.add_boolean(False)
            message.add_string("KILL")
            message.add_boolean(False)
            message.add_string("")
            message.add_string("")
            channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]  # none is public
        else:
            channel.send_exit_status(self.status)
        channel.close()

    def _goes_wrong(self, step: str, connection: socket.socket | None = None) -> bool:
        """Whether it is time to lie; a drop and a stall are done here."""
        if step != self.step:
            return False
        self.reached.set()
        if self.fault == "drop":
            for each in [connection] if connection else self.connections:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            raise EOFError
        if self.fault == "stall":
            self.ended.wait(_LONGEST)
            raise EOFError
        return True

    # What paramiko's server asks us; each call is made in the transport's own thread.

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_FAILED if self._goes_wrong("auth") else paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        refused = self._goes_wrong("open")
        return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED if refused else paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._goes_wrong("exec"):
            return False
        self.executed.set()
        return True

    def check_channel_pty_request(self, *_: object) -> bool:
        return True

    def check_global_request(self, kind: str, msg: paramiko.Message) -> bool:
        self._goes_wrong("alive")
        return True

    def close(self) -> None:
        """Leave nothing behind that goes on beside the next test."""
        self.ended.set()
        self.executed.set()
        stop(self.listener)
        self.accepting.join(_LONGEST)
        for transport in self.transports:
            transport.close()
        for connection in self.connections:
            stop(connection)
        for thread in self.threads:
            thread.join(_LONGEST)


@contextlib.contextmanager
def bad_server(step: str, fault: str, key: Path) -> Iterator[BadServer]:
    server = BadServer(step, fault, key)
    try:
        yield server
    finally:
        server.close()

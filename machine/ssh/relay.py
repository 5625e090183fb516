"""Ports of the host that lead through SSH into the guest, to addresses that only the guest itself reaches.

One SSH connection carries all of them. It is made for the first client, and again when it broke; nothing is set up in
the guest, and nobody gets at these ports there who couldn't before. Ends with the process.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from machine.docker.ports import Port, explain
from machine.errors import MachineError, SSHFailed
from machine.paths import MachineFolder
from machine.reasons import reason
from machine.spec import Address

if TYPE_CHECKING:
    import paramiko

_BLOCK = 65536
# Seconds for the guest's SSH server to answer.
_PATIENCE = 30.0
# The text between two readings of the files.
_END = "--\n"


class Connection:
    """The SSH connection to the guest; made when it is needed, and again when it broke."""

    def __init__(self, folder: MachineFolder, address: Address, user: str) -> None:
        self.folder = folder
        self.address = address
        self.user = user
        # Why it couldn't be made the last time.
        self.trouble = ""
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None

    def open(self, target: str, port: int) -> paramiko.Channel:
        """A channel to an address that the guest can reach. Raises SSHFailed."""

        def begin(transport: paramiko.Transport) -> paramiko.Channel:
            return transport.open_channel("direct-tcpip", (target, port), ("127.0.0.1", 0), timeout=_PATIENCE)

        return self._opened(begin)

    def execute(self, command: str) -> paramiko.Channel:
        """A channel to a command of the guest's shell. Raises SSHFailed."""

        def begin(transport: paramiko.Transport) -> paramiko.Channel:
            channel = transport.open_session(timeout=_PATIENCE)
            channel.settimeout(_PATIENCE)
            channel.exec_command(command)
            return channel

        return self._opened(begin)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _end(self, transport: paramiko.Transport) -> None:
        """Close the connection unless another has taken its place."""
        with self._lock:
            if self._client and self._client.get_transport() is transport:
                self._drop()

    def _opened(self, begin: Callable[[paramiko.Transport], paramiko.Channel]) -> paramiko.Channel:
        import paramiko

        transport = self._transport()
        try:
            return begin(transport)
        except paramiko.ChannelException as error:  # nobody listens there: the connection is well
            raise SSHFailed(f"the guest refuses: {reason(error)}") from error
        except Exception as error:  # paramiko raises whatever its thread stumbled on
            self._end(transport)
            raise SSHFailed(f"the SSH connection broke: {reason(error)}") from error

    def _transport(self) -> paramiko.Transport:
        from machine.ssh import native

        with self._lock:
            transport = self._client.get_transport() if self._client else None
            if transport is None or not transport.is_active():
                self._drop()
                try:
                    self._client = native.connect(self.folder, self.address, self.user, _PATIENCE)
                except SSHFailed as error:
                    self.trouble = error.message
                    raise
                self.trouble = ""
                transport = self._client.get_transport()
            if transport is None:
                raise SSHFailed("the SSH connection broke")
            return transport

    def _drop(self) -> None:
        if self._client:
            self._client.close()
        self._client = None


class Relay:
    """Forwards, as the hypervisor has them, for the TCP ports in targets: each with the guest's address it leads to."""

    guest = ""
    protocols = frozenset({"tcp"})

    def __init__(self, host: str, connection: Connection) -> None:
        self.host = host
        self.connection = connection
        self.targets: dict[Port, str] = {}
        self._servers: dict[Port, _Server] = {}

    def aim(self, targets: dict[Port, str]) -> None:
        """Say what is to be forwarded from now on; a port that leads to another address is closed at once."""
        self.targets = targets
        for port, server in list(self._servers.items()):
            if targets.get(port, server.target) != server.target:
                self.drop(*port)

    def current(self) -> set[Port]:
        return set(self._servers)

    def add(self, protocol: str, port: int) -> str:
        try:
            server = _Server(self.host, port, self.targets[protocol, port], self.connection)
        except OSError as error:
            return explain(error, self.host, port)
        threading.Thread(target=server.serve, daemon=True).start()
        self._servers[protocol, port] = server
        return ""

    def drop(self, protocol: str, port: int) -> None:
        server = self._servers.pop((protocol, port))
        # On Linux a socket that is closed listens on while a thread waits for it.
        with contextlib.suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.server_close()
        # Its thread takes up to half a second to notice.
        threading.Thread(target=server.shutdown, daemon=True).start()

    def close(self) -> None:
        for port in self.current():
            self.drop(*port)
        self.connection.close()


class Reader:
    """Reads files of the guest again and again, for little: one shell waits there for the next time."""

    def __init__(self, connection: Connection, files: tuple[str, ...]) -> None:
        self.connection = connection
        self.command = f"while read x; do cat {' '.join(files)} 2>/dev/null; echo {_END.strip()}; done"
        self._channel: paramiko.Channel | None = None

    def read(self) -> str:
        """What the files hold now. Raises SSHFailed."""
        if self._channel is None:
            self._channel = self.connection.execute(self.command)
        try:
            self._channel.sendall(b"\n")
            return self._answer(self._channel)
        except Exception as error:
            self.close()
            raise SSHFailed(f"the SSH connection broke: {reason(error)}") from error

    def close(self) -> None:
        if self._channel:
            self._channel.close()
        self._channel = None

    def _answer(self, channel: paramiko.Channel) -> str:
        text = b""
        while not text.endswith(_END.encode()):
            block = channel.recv(_BLOCK)
            if not block:
                raise EOFError("the guest's shell ended")
            text += block
        return text.decode("utf-8", "replace").removesuffix(_END)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    # On Windows this would share a port with another program that has it.
    allow_reuse_address = sys.platform != "win32"
    request_queue_size = 128

    def __init__(self, host: str, port: int, target: str, connection: Connection) -> None:
        self.target = target
        self.connection = connection
        super().__init__((host, port), _Client)

    def serve(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the socket was closed
            self.serve_forever()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client or a service that hangs up is no fault of ours."""


class _Client(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            channel = self.server.connection.open(self.server.target, self.server.server_address[1])
        except (MachineError, OSError) as error:
            print(f"port {self.server.server_address[1]}: {reason(error)}", file=sys.stderr, flush=True)
            return
        with contextlib.closing(channel):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            carry(self.request, channel)


def carry(near: socket.socket, channel: paramiko.Channel) -> None:
    """Copy both ways until each side has said all, or one is gone."""

    def pump(read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]) -> None:
        """Copy until read has no more, and say so to the other side. A side that is gone ends both ways."""
        try:
            while block := read(_BLOCK):
                write(block)
            end()
        except (OSError, EOFError):
            # The other way may wait for a side that is silent, or takes nothing: for ever.
            channel.close()
            with contextlib.suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    sender = threading.Thread(target=pump, args=(near.recv, channel.sendall, channel.shutdown_write), daemon=True)
    sender.start()
    pump(channel.recv, near.sendall, lambda: near.shutdown(socket.SHUT_WR))
    sender.join()

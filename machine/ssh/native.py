"""SSH without OpenSSH: paramiko. Imported by `ssh` only when it is needed (98 ms).

paramiko raises whatever its thread stumbled on (struct.error, UnicodeDecodeError, EOFError where a server talks
nonsense), logs it with a traceback, and waits without a deadline for the answers to some requests. Here each of these
becomes an SSHFailed, in time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import paramiko

from machine.errors import SSHFailed
from machine.paths import MachineFolder
from machine.reasons import reason
from machine.run import Completed
from machine.spec import Address
from machine.ssh import terminal
from machine.ssh.failure import broken, failed, key_changed, timed_out
from machine.ssh.limits import ALIVE_INTERVAL, ALIVE_TIMEOUT, CONNECT_TIMEOUT, NO_CONNECTION

_CHUNK = 32768
# Seconds. The window's size is looked at so often, which needs no signal and so works on Windows too.
_RESIZE_INTERVAL = 0.25
# What paramiko raises when the other end closes while we send.
_BROKEN = (OSError, EOFError, paramiko.SSHException)

# Without a handler, logging prints paramiko's tracebacks on stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


def run(
    folder: MachineFolder,
    address: Address,
    user: str,
    command: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float,
) -> Completed:
    """Run a command to its end. timeout in seconds, for all of it. Raises SSHFailed, SSHTimeout."""
    deadline = time.monotonic() + timeout

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    out, err = bytearray(), bytearray()
    with _session(folder, address, user, command, left=left) as channel:
        pumps = [_pump(channel.recv, out.extend), _pump(channel.recv_stderr, err.extend)]
        _start(lambda: _send(channel, input or b""))
        for pump in pumps:
            pump.join(left())
        if any(pump.is_alive() for pump in pumps) or not channel.status_event.wait(left()):
            raise timed_out(folder, address, command, timeout)
        code = channel.recv_exit_status()
    if code < 0:
        raise broken(folder, address, command, _reason(channel))
    return Completed(list(command), code, _text(out), _text(err))


def interactive(folder: MachineFolder, address: Address, user: str, command: Sequence[str], *, tty: bool | None) -> int:
    """A session on our own terminal; the exit code is the command's, 255 for no connection."""
    on_terminal = (not command and sys.stdin.isatty()) if tty is None else tty
    try:
        with _session(folder, address, user, command, on_terminal=on_terminal) as channel:
            _keep_alive(channel.get_transport())
            (_on_terminal if on_terminal else _on_pipes)(channel)
            code = channel.recv_exit_status()
        if code < 0:
            raise broken(folder, address, command, _reason(channel))
    except SSHFailed as error:
        # As ssh does it: a line on stderr, and its exit code.
        print(f"{error.message} ({error.details})" if error.details else error.message, file=sys.stderr)
        return NO_CONNECTION
    return code


def host_key(address: Address, kind: str, timeout: float) -> str:
    """The public key of this kind that the server shows: `KIND BASE64`. timeout in seconds. Raises SSHFailed."""
    try:
        with socket.create_connection((address.host, address.ssh_port), timeout) as connection:
            transport = paramiko.Transport(connection)
            try:
                transport.banner_timeout = timeout
                transport.get_security_options().key_types = (kind,)
                transport.start_client(timeout=timeout)
                return f"{kind} {transport.get_remote_server_key().get_base64()}"
            finally:
                transport.close()
    except Exception as error:
        raise SSHFailed(
            f"{address.host}:{address.ssh_port} shows no {kind} key: {_words(error)}",
            hint="check that its SSH server has one",
        ) from error


@contextlib.contextmanager
def _session(
    folder: MachineFolder,
    address: Address,
    user: str,
    command: Sequence[str],
    *,
    on_terminal: bool = False,
    left: Callable[[], float] = lambda: CONNECT_TIMEOUT,
) -> Iterator[paramiko.Channel]:
    """The channel of a command that has begun; each step to there takes CONNECT_TIMEOUT at most, and what is left."""

    def limit() -> float:
        return min(CONNECT_TIMEOUT, left())

    with paramiko.SSHClient() as client:
        with _explained(folder, address):
            transport = _connect(client, folder, address, user, limit())
            channel = transport.open_session(timeout=limit())
            with _within(limit(), transport.close):
                _begin(channel, command, on_terminal=on_terminal)
        yield channel


def connect(folder: MachineFolder, address: Address, user: str, timeout: float) -> paramiko.SSHClient:
    """A connection that stays until the server no longer answers; the caller closes it. timeout in seconds.

    Raises SSHFailed.
    """
    client = paramiko.SSHClient()
    try:
        with _explained(folder, address):
            _keep_alive(_connect(client, folder, address, user, timeout))
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _explained(folder: MachineFolder, address: Address) -> Iterator[None]:
    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise key_changed(folder, address, _words(error)) from error
    except Exception as error:
        raise failed(folder, address, _words(error)) from error


def _connect(
    client: paramiko.SSHClient, folder: MachineFolder, address: Address, user: str, limit: float
) -> paramiko.Transport:
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.load_host_keys(str(folder.known_hosts))
    client.connect(
        address.host,
        address.ssh_port,
        user,
        key_filename=str(folder.ssh_key),
        timeout=limit,
        banner_timeout=limit
        * 2,  # timeout counts for all until the keys are exchanged; this one's error hides the cause
        auth_timeout=limit,
        allow_agent=False,
        look_for_keys=False,
    )
    transport = client.get_transport()
    if transport is None:
        raise EOFError
    return transport


def _begin(channel: paramiko.Channel, command: Sequence[str], *, on_terminal: bool) -> None:
    if on_terminal:
        size = terminal.size()
        channel.get_pty(os.environ.get("TERM") or "xterm", size.columns, size.lines)
    if command:
        channel.exec_command(" ".join(command))
    else:
        channel.invoke_shell()


@contextlib.contextmanager
def _within(seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Break off what takes longer, by calling end in another thread; it is a TimeoutError then."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        end()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if expired.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def _keep_alive(transport: paramiko.Transport) -> None:
    """Close the connection when the server no longer answers, as ssh's ServerAliveInterval does."""

    def ask() -> None:
        with contextlib.suppress(*_BROKEN):
            while transport.is_active():
                with _within(ALIVE_TIMEOUT, transport.close):
                    transport.global_request("keepalive@openssh.com")
                transport.join(ALIVE_INTERVAL)  # its thread ends with the connection, and so does this one

    _start(ask)


def _on_terminal(channel: paramiko.Channel) -> None:
    size = terminal.size()
    channel.settimeout(_RESIZE_INTERVAL)
    with terminal.raw():
        _start(lambda: _type(channel))
        while True:
            try:
                data = channel.recv(_CHUNK)
            except TimeoutError:
                data = None
            if data == b"":
                return
            if data:
                _write(1, data)
            if (now := terminal.size()) != size:
                size = now
                with contextlib.suppress(*_BROKEN):
                    channel.resize_pty(size.columns, size.lines)


def _on_pipes(channel: paramiko.Channel) -> None:
    _start(lambda: _type(channel))
    errors = _pump(channel.recv_stderr, _warn)
    while data := channel.recv(_CHUNK):
        _write(1, data)
    errors.join()


def _type(channel: paramiko.Channel) -> None:
    """Send our standard input until it ends. In a thread of its own: on Windows a console can't be polled."""
    with contextlib.suppress(*_BROKEN):
        while data := os.read(0, _CHUNK):
            channel.sendall(data)
        channel.shutdown_write()


def _send(channel: paramiko.Channel, data: bytes) -> None:
    # The command need not read all of it.
    with contextlib.suppress(*_BROKEN):
        channel.sendall(data)
        channel.shutdown_write()


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], None]) -> threading.Thread:
    def pump() -> None:
        while data := read(_CHUNK):
            write(data)

    return _start(pump)


def _start(work: Callable[[], None]) -> threading.Thread:
    # A daemon: one that still waits for a key must not keep us from ending.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _reason(channel: paramiko.Channel) -> str:
    """What paramiko knows of a command that has no exit status, or nothing."""
    error = channel.get_transport().get_exception()
    return _words(error) if error else ""


def _words(error: BaseException) -> str:
    return "the server closed the connection" if isinstance(error, EOFError) else reason(error)


def _warn(data: bytes) -> None:
    # Whoever read our stderr may have gone: the command goes on, as with ssh.
    with contextlib.suppress(OSError):
        _write(2, data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _text(raw: bytearray) -> str:
    return raw.decode("utf-8", "replace")

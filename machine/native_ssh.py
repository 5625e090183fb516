"""SSH without OpenSSH: paramiko. Imported by `ssh` only when it is needed (98 ms)."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import paramiko

from machine import terminal
from machine.errors import SSHFailed, WaitTimeout
from machine.paths import Home
from machine.run import Completed
from machine.spec import Address
from machine.ssh import CONNECT_TIMEOUT, NO_CONNECTION, failed

_CHUNK = 32768
# Seconds. The window's size is looked at so often, which needs no signal and so works on Windows too.
_RESIZE_INTERVAL = 0.25
# What paramiko raises when the other end closes while we send.
_BROKEN = (OSError, EOFError, paramiko.SSHException)


def run(
    home: Home,
    address: Address,
    user: str,
    command: Sequence[str],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a command to its end; raises SSHFailed, and WaitTimeout after timeout seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    out, err = bytearray(), bytearray()
    with _connected(home, address, user) as client:
        channel = _session(client, home, address)
        channel.exec_command(" ".join(command))
        pumps = [_pump(channel.recv, out.extend), _pump(channel.recv_stderr, err.extend)]
        _start(lambda: _send(channel, input or b""))
        for pump in pumps:
            pump.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if pump.is_alive():
                raise WaitTimeout(f"{command[0]} to end", timeout or 0)
        code = _exit_code(channel)
    if code == NO_CONNECTION and not err:
        raise failed(home, address, "the connection broke")
    return Completed(list(command), code, _text(out), _text(err))


def interactive(home: Home, address: Address, user: str, command: Sequence[str], *, tty: bool | None) -> int:
    """A session on our own terminal; the exit code is the command's, 255 for no connection."""
    try:
        with _connected(home, address, user) as client:
            channel = _session(client, home, address)
            if (not command and sys.stdin.isatty()) if tty is None else tty:
                return _on_terminal(channel, command)
            return _on_pipes(channel, command)
    except (SSHFailed, paramiko.SSHException, OSError) as error:
        # As ssh does it: a line on stderr, and its exit code.
        print(f"{error} ({error.details})" if isinstance(error, SSHFailed) else error, file=sys.stderr)
        return NO_CONNECTION


def _on_terminal(channel: paramiko.Channel, command: Sequence[str]) -> int:
    size = terminal.size()
    channel.get_pty(os.environ.get("TERM") or "xterm", size.columns, size.lines)
    _begin(channel, command)
    channel.settimeout(_RESIZE_INTERVAL)
    with terminal.raw():
        _start(lambda: _type(channel))
        while True:
            try:
                data = channel.recv(_CHUNK)
            except TimeoutError:
                data = None
            if data == b"":
                return _exit_code(channel)
            if data:
                _write(1, data)
            if (now := terminal.size()) != size:
                size = now
                channel.resize_pty(size.columns, size.lines)


def _on_pipes(channel: paramiko.Channel, command: Sequence[str]) -> int:
    _begin(channel, command)
    _start(lambda: _type(channel))
    errors = _pump(channel.recv_stderr, lambda data: _write(2, data))
    while data := channel.recv(_CHUNK):
        _write(1, data)
    errors.join()
    return _exit_code(channel)


def _begin(channel: paramiko.Channel, command: Sequence[str]) -> None:
    if command:
        channel.exec_command(" ".join(command))
    else:
        channel.invoke_shell()


@contextlib.contextmanager
def _connected(home: Home, address: Address, user: str) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    with client:
        try:
            client.load_host_keys(str(home.known_hosts))
            client.connect(
                address.host,
                address.ssh_port,
                user,
                key_filename=str(home.ssh_key),
                timeout=CONNECT_TIMEOUT,
                banner_timeout=CONNECT_TIMEOUT,
                auth_timeout=CONNECT_TIMEOUT,
                allow_agent=False,
                look_for_keys=False,
            )
        except paramiko.BadHostKeyException as error:
            raise failed(home, address, f"Host key verification failed: {error}") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise failed(home, address, str(error) or type(error).__name__) from error
        yield client


def _session(client: paramiko.SSHClient, home: Home, address: Address) -> paramiko.Channel:
    transport = client.get_transport()
    if transport is None:
        raise failed(home, address, "the connection broke")
    transport.set_keepalive(15)
    try:
        return transport.open_session(timeout=CONNECT_TIMEOUT)
    except paramiko.SSHException as error:
        raise failed(home, address, str(error)) from error


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


def _exit_code(channel: paramiko.Channel) -> int:
    # -1: the connection broke, or a signal ended the command; ssh says 255 for both.
    code = channel.recv_exit_status()
    return code if code >= 0 else NO_CONNECTION


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _text(raw: bytearray) -> str:
    return raw.decode("utf-8", "replace")

"""Saving a machine's state to a file and loading it again, through QEMU's migration."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import wait
from machine.errors import DriverFailed
from machine.reasons import reason

from .qmp import Qmp

# Bytes per second: a file, not a network, is at the other end.
BANDWIDTH = 100 << 30
# QEMU writes states to files since 8.2 (`file:`), and has deprecated since 9.1 that `fd:` leads to one.
FILES_SINCE = (8, 2)
# Seconds; a machine of 64 GiB on a slow disk takes minutes.
DEADLINE = 600.0


class Refused(DriverFailed):
    """QEMU says that it couldn't save or load the state."""


def save(monitor: Qmp, path: Path, *, without_memory: bool = False) -> None:
    """Stop the guest and write its state, which is on the disk for good when this returns.

    without_memory: what lies in a shared file stays there. Raises DriverFailed; the guest is stopped then all the same.
    """
    monitor.execute("stop")
    _prepare(monitor, without_memory)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with _handed_over(monitor, descriptor) as uri:
            monitor.execute("migrate", uri=uri)
            _await_end(monitor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(monitor: Qmp, path: Path, *, without_memory: bool = False) -> None:
    """Load a state into a QEMU that waits for one (-incoming defer). The guest stands still until `cont`.

    Raises DriverFailed.
    """
    _prepare(monitor, without_memory)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with _handed_over(monitor, descriptor) as uri:
            monitor.execute("migrate-incoming", uri=uri)
            _await_end(monitor)
    finally:
        os.close(descriptor)
    wait.until(lambda: _is_loaded(monitor), timeout=10, what="QEMU to finish loading the state", interval=0.002)
    # It would hold for snapshots of this QEMU, too, and another then refuses to load them.
    _leave_shared_out(monitor, False)


def _prepare(monitor: Qmp, without_memory: bool) -> None:
    _leave_shared_out(monitor, without_memory)
    monitor.execute("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH})


def _leave_shared_out(monitor: Qmp, yes: bool) -> None:
    capability = {"capability": "x-ignore-shared", "state": yes}
    monitor.execute("migrate-set-capabilities", capabilities=[capability])


@contextlib.contextmanager
def _handed_over(monitor: Qmp, descriptor: int) -> Iterator[str]:
    """Give QEMU the open file; yields the URI by which migration finds it there."""
    if monitor.version < FILES_SINCE:
        _send(monitor, descriptor, "getfd", fdname="state")
        yield "fd:state"
        return
    number = _send(monitor, descriptor, "add-fd")["fdset-id"]
    try:
        yield f"file:/dev/fdset/{number}"
    finally:
        # Also where it failed, or the running QEMU would keep the room of a file that is gone.
        with contextlib.suppress(DriverFailed):
            monitor.execute("remove-fd", **{"fdset-id": number})


def _send(monitor: Qmp, descriptor: int, command: str, **arguments: object) -> Any:
    """Give QEMU a command that an open file belongs to: the descriptor travels with it. Returns the answer."""
    line = json.dumps(monitor.message(command, **arguments)).encode() + b"\n"
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
    try:
        monitor.socket.sendmsg([line], [rights])
    except OSError as error:
        raise DriverFailed(f"QEMU closed {monitor.path.name}: {reason(error)}") from error
    return monitor.answer(command)


def _await_end(monitor: Qmp) -> None:
    def end() -> dict[str, str] | None:
        migration: dict[str, str] = monitor.execute("query-migrate")
        return migration if migration.get("status") in {"completed", "failed", "cancelled"} else None

    migration = wait.until(end, timeout=DEADLINE, what="QEMU to save or load the state", interval=0.005)
    if migration["status"] != "completed":
        raise Refused(f"QEMU couldn't save or load the state: {migration.get('error-desc', migration['status'])}")


def _is_loaded(monitor: Qmp) -> bool:
    return bool(monitor.execute("query-status")["status"] != "inmigrate")

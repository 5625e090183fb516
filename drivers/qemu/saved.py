"""Saving a machine's state to a file and loading it again, through QEMU's migration; suspend and what follows."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import files, wait
from machine.errors import DriverFailed
from machine.reasons import reason

from . import sizes
from .argv import SUSPENDED, SUSPENDED_LAYOUT, Memory
from .qmp import Qmp

if TYPE_CHECKING:
    from .driver import Qemu

# Bytes per second: a file, not a network, is at the other end.
BANDWIDTH = 100 << 30
# Seconds; a machine of 64 GiB on a slow disk takes minutes.
DEADLINE = 600.0


def save(monitor: Qmp, path: Path, *, without_memory: bool = False) -> None:
    """Stop the guest and write its state. without_memory: what lies in a shared file stays there.

    Raises DriverFailed; the guest is stopped then all the same.
    """
    monitor.execute("stop")
    _prepare(monitor, without_memory)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _hand_over(monitor, descriptor)
    finally:
        os.close(descriptor)
    monitor.execute("migrate", uri="fd:state")
    _await_end(monitor)


def load(monitor: Qmp, path: Path, *, without_memory: bool = False) -> None:
    """Load a state into a QEMU that waits for one (-incoming defer), and let the guest run. Raises DriverFailed."""
    _prepare(monitor, without_memory)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _hand_over(monitor, descriptor)
    finally:
        os.close(descriptor)
    monitor.execute("migrate-incoming", uri="fd:state")
    _await_end(monitor)
    wait.until(lambda: _is_loaded(monitor), timeout=10, what="QEMU to take over the state", interval=0.002)
    # It would hold for snapshots of this QEMU, too, and another then refuses to load them.
    _leave_shared_out(monitor, False)
    monitor.execute("cont")


def suspend(qemu: Qemu) -> None:
    """See driver.Suspend. Where it fails, the machine goes on as if nothing had been."""
    partial = qemu.home / f".{SUSPENDED}"
    with qemu.monitor() as monitor:
        try:
            files.write(qemu.home / SUSPENDED_LAYOUT, json.dumps(sizes.layout(monitor)))
            save(monitor, partial)
        except BaseException:
            # A full disk, or Ctrl-C.
            for path in (partial, qemu.home / SUSPENDED_LAYOUT):
                path.unlink(missing_ok=True)
            with contextlib.suppress(DriverFailed):
                # What is still being written would stop the guest again at its end.
                monitor.execute("migrate_cancel")
                monitor.execute("cont")
            raise
    qemu.end()
    files.move(partial, qemu.home / SUSPENDED)


def wake(qemu: Qemu) -> None:
    """Go on with a suspended machine; its state stays where that fails."""
    found = json.loads((qemu.home / SUSPENDED_LAYOUT).read_text(encoding="utf-8"))
    with laid_out(qemu, found, incoming=True) as monitor:
        sizes.plug(monitor, found["more_mib"])
        load(monitor, qemu.home / SUSPENDED)
    qemu.forget_suspended()
    has_woken(qemu)


def has_woken(qemu: Qemu) -> None:
    """The guest goes on where it was, and has missed what time it is."""
    with contextlib.suppress(DriverFailed), qemu.agent() as agent:
        agent.set_time()


@contextlib.contextmanager
def laid_out(qemu: Qemu, found: dict[str, Any], **how: bool) -> Iterator[Qmp]:
    """A QEMU that a state can be loaded into, and its monitor. It is ended when the block fails."""
    qemu.launch(Memory(found["base_mib"], reporting=found["reporting"]), cpus=found["cpus"], **how)
    try:
        with qemu.monitor() as monitor:
            yield monitor
    except BaseException:
        qemu.end()
        raise


def _prepare(monitor: Qmp, without_memory: bool) -> None:
    _leave_shared_out(monitor, without_memory)
    monitor.execute("migrate-set-parameters", **{"max-bandwidth": BANDWIDTH})


def _leave_shared_out(monitor: Qmp, yes: bool) -> None:
    capability = {"capability": "x-ignore-shared", "state": yes}
    monitor.execute("migrate-set-capabilities", capabilities=[capability])


def _hand_over(monitor: Qmp, descriptor: int) -> None:
    """Give QEMU the open file under the name `state`: the descriptor travels with the command."""
    command = json.dumps({"execute": "getfd", "arguments": {"fdname": "state"}}).encode() + b"\n"
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
    try:
        monitor.socket.sendmsg([command], [rights])
    except OSError as error:
        raise DriverFailed(f"QEMU closed {monitor.path.name}: {reason(error)}") from error
    monitor.answer("getfd")


def _await_end(monitor: Qmp) -> None:
    def end() -> dict[str, str] | None:
        found: dict[str, str] = monitor.execute("query-migrate")
        return found if found.get("status") in {"completed", "failed", "cancelled"} else None

    found = wait.until(end, timeout=DEADLINE, what="QEMU to get through with the state", interval=0.005)
    if found["status"] != "completed":
        raise DriverFailed(f"QEMU couldn't save or load the state: {found.get('error-desc', found['status'])}")


def _is_loaded(monitor: Qmp) -> bool:
    return bool(monitor.execute("query-status")["status"] != "inmigrate")

"""What only some drivers can do with a machine: suspend it, keep snapshots of it, start it with the host."""

from __future__ import annotations

from machine import lifecycle, store
from machine.driver import SNAPSHOT_NAME, Autostart, Driver, Machine, Snapshot, Snapshots, State, Suspend
from machine.errors import NotRunning, Usage
from machine.progress import Progress


def suspend(name: str, progress: Progress) -> bool:
    """Write the memory to disk and switch off; False when it is suspended already. Raises Usage, NotRunning."""
    with store.changing(name) as machine:
        backend = lifecycle.driver(machine, store.home(name))
        if not isinstance(backend, Suspend):
            raise _unable(backend, "suspend machines")
        state = backend.state()
        if state is State.SAVED:
            return False
        if state not in {State.RUNNING, State.PAUSED}:
            raise NotRunning(name)
        progress.phase("writing its memory to disk")
        backend.suspend()
    return True


def take(name: str, snapshot: str, progress: Progress) -> None:
    """Keep the machine as it is now. Raises Usage, and DriverFailed when there is one of that name."""
    if not SNAPSHOT_NAME.fullmatch(snapshot):
        raise Usage(
            f'invalid name "{snapshot}" of a snapshot: use letters, digits, dots, dashes and _, not digits only',
            hint="machine snapshot create dev before-upgrade",
        )
    with store.changing(name) as machine:
        able = _able(lifecycle.driver(machine, store.home(name)))
        progress.phase("taking the snapshot")
        able.snapshot(snapshot)


def list_all(name: str) -> list[Snapshot]:
    """The machine's snapshots, oldest first."""
    machine = store.load(name)
    return _able(lifecycle.driver(machine, store.home(name))).snapshots()


def restore(name: str, snapshot: str, progress: Progress, *, timeout: float = lifecycle.START_TIMEOUT) -> State:
    """Bring the machine back to a snapshot; wait until Docker and SSH answer when it ran then. Returns its state."""
    with store.changing(name) as machine:
        home = store.home(name)
        backend = lifecycle.driver(machine, home)
        progress.phase("restoring the snapshot")
        _able(backend).restore(snapshot)
        state = backend.state()
        if state is State.RUNNING:
            lifecycle.wait_ready(machine, home, backend, progress, timeout=timeout, warm=True)
    return state


def forget(name: str, snapshot: str) -> None:
    with store.changing(name) as machine:
        _able(lifecycle.driver(machine, store.home(name))).forget(snapshot)


def set_autostart(name: str, on: bool) -> None:
    with store.changing(name) as machine:
        _with_host(name, machine).set_autostart(on)


def autostart(name: str) -> bool:
    return _with_host(name, store.load(name)).autostart()


def _able(backend: Driver) -> Snapshots:
    if not isinstance(backend, Snapshots):
        raise _unable(backend, "take snapshots")
    return backend


def _with_host(name: str, machine: Machine) -> Autostart:
    backend = lifecycle.driver(machine, store.home(name))
    if not isinstance(backend, Autostart):
        raise _unable(backend, "start machines with the host")
    return backend


def _unable(backend: Driver, what: str) -> Usage:
    return Usage(f"the driver {backend.name} can't {what}", hint="machine create --driver NAME")

"""Abilities that only some drivers have: suspend a machine, save and restore snapshots, start it with the host."""

from __future__ import annotations

from machine import lifecycle
from machine.driver import SNAPSHOT_NAME, Autostart, Driver, Snapshot, Snapshots, State, Suspend
from machine.errors import NotRunning, Usage
from machine.instance import changing, load
from machine.progress import Progress


def suspend(name: str, progress: Progress) -> bool:
    """Write the memory to disk and switch off; False when it is suspended already. Raises Usage, NotRunning."""
    with changing(name) as instance:
        driver = instance.driver
        if not isinstance(driver, Suspend):
            raise _unable(driver, "suspend machines")
        state = driver.state()
        if state is State.SAVED:
            return False
        if state not in {State.RUNNING, State.PAUSED}:
            raise NotRunning(name)
        if driver.kind.keeps_memory:
            progress.phase("writing its memory to disk")
        else:
            progress.phase("freezing its processes")
            progress.note("they keep their memory, until this computer restarts: that ends them")
        driver.suspend()
    return True


def take(name: str, snapshot: str, progress: Progress) -> None:
    """Save the machine's present state. Raises Usage, and DriverFailed if the name is taken."""
    if not SNAPSHOT_NAME.fullmatch(snapshot):
        raise Usage(
            f'invalid name "{snapshot}" of a snapshot: use letters, digits, dots, dashes and _, not digits only',
            hint="machine snapshot create dev before-upgrade",
        )
    with changing(name) as instance:
        able = _able(instance.driver)
        progress.phase("taking the snapshot")
        able.snapshot(snapshot)


def list_all(name: str) -> list[Snapshot]:
    """The machine's snapshots, oldest first."""
    return _able(load(name).driver).snapshots()


def restore(name: str, snapshot: str, progress: Progress, *, timeout: float = lifecycle.START_TIMEOUT) -> State:
    """Restore a snapshot; if the machine ran then, wait until Docker and SSH answer. Returns its state."""
    with changing(name) as instance:
        progress.phase("restoring the snapshot")
        _able(instance.driver).restore(snapshot)
        state = instance.driver.state()
        if state is State.RUNNING:
            lifecycle.wait_ready(instance, progress, timeout=timeout, warm=True)
    return state


def forget(name: str, snapshot: str) -> None:
    with changing(name) as instance:
        _able(instance.driver).forget(snapshot)


def set_autostart(name: str, on: bool) -> None:
    with changing(name) as instance:
        _with_host(instance.driver).set_autostart(on)


def autostart(name: str) -> bool:
    return _with_host(load(name).driver).autostart()


def _able(driver: Driver) -> Snapshots:
    if not isinstance(driver, Snapshots):
        raise _unable(driver, "take snapshots")
    return driver


def _with_host(driver: Driver) -> Autostart:
    if not isinstance(driver, Autostart):
        raise _unable(driver, "start machines with the host")
    return driver


def _unable(driver: Driver, what: str) -> Usage:
    return Usage(f"the driver {driver.name} can't {what}", hint="machine create --driver NAME")

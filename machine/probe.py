"""What is known of a machine: its address at once, its state when the hypervisor is asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from machine import store
from machine.errors import MachineError, NotRunning, Usage, WaitTimeout
from machine.reasons import reason
from machine.spec import State

if TYPE_CHECKING:
    from machine.driver import Driver
    from machine.paths import Home
    from machine.spec import Address, Machine

# Probes mostly wait; so many at once hide that without a storm of hypervisor commands.
AT_ONCE = 16


def driver(machine: Machine, home: Home) -> Driver:
    """The machine's driver. Raises Usage when there is none of its name here."""
    from machine import registry, run

    return registry.load(machine.driver)(machine, home, run.run)


def address(machine: Machine, home: Home) -> Address:
    """Where the machine is reached; its driver is asked only when machine.json doesn't say. Raises DriverFailed."""
    return machine.address or driver(machine, home).address()


def known(name: str) -> tuple[Machine, Home, Address]:
    """All that env, url and ssh need. Raises NoSuchMachine, StoreDamaged, DriverFailed."""
    machine, home = store.load(name), store.home(name)
    return machine, home, address(machine, home)


def running(name: str, *, timeout: float = 10) -> tuple[Machine, Home, Address]:
    """As `known`, for a machine that runs and that SSH reaches.

    Raises NotRunning, Usage when it is only the URL of a daemon, WaitTimeout when the hypervisor doesn't tell.
    """
    machine, home, place = known(name)
    if not driver(machine, home).kind.has_ssh:
        raise Usage(
            f'of the machine "{name}" only the URL of its Docker is known: there is no way in',
            hint="machine url " + name,
        )
    found = state(machine, home, timeout=timeout)
    if found is None:
        raise WaitTimeout(f'the hypervisor to tell the state of "{name}"', timeout, hint="machine ls")
    if found is not State.RUNNING:
        raise NotRunning(name)
    return machine, home, place


def url(machine: Machine, home: Home) -> str:
    """The URL of the machine's Docker daemon, "" while its address isn't known."""
    try:
        return address(machine, home).url
    except MachineError:
        return ""


def state(machine: Machine, home: Home, *, timeout: float) -> State | None:
    """The machine's state; None when the hypervisor doesn't tell within timeout seconds. Raises MachineError."""
    found: list[State] = []
    failed: list[MachineError] = []

    def ask() -> None:
        try:
            found.append(driver(machine, home).state())
        except MachineError as error:
            failed.append(error)

    together([ask], timeout=timeout)
    if failed:
        raise failed[0]
    return found[0] if found else None


def together(jobs: Sequence[Callable[[], None]], *, timeout: float) -> list[bool]:
    """Do the jobs, several at once, each within timeout seconds; False stands for one that took longer.

    A job that takes longer is left to itself and another takes its place; its thread doesn't keep the process from
    ending. (concurrent.futures waits for every thread at exit, and takes 10 ms to import.)
    """
    import threading
    from queue import Empty, SimpleQueue

    ended: SimpleQueue[int] = SimpleQueue()
    in_time = [False] * len(jobs)
    waiting = list(reversed(range(len(jobs))))
    deadlines: dict[int, float] = {}

    def work(number: int) -> None:
        try:
            jobs[number]()
        except Exception as error:  # a fault in a driver must not hide the other machines
            print(f"warning: a driver has a fault: {reason(error)}", file=sys.stderr)
        ended.put(number)

    while waiting or deadlines:
        while waiting and len(deadlines) < AT_ONCE:
            number = waiting.pop()
            deadlines[number] = time.monotonic() + timeout
            threading.Thread(target=work, args=(number,), daemon=True).start()
        try:
            number = ended.get(timeout=max(0.0, min(deadlines.values()) - time.monotonic()))
        except Empty:
            now = time.monotonic()
            deadlines = {number: until for number, until in deadlines.items() if until > now}
        else:
            if deadlines.pop(number, None) is not None:
                in_time[number] = True
    return in_time

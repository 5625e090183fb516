"""Shutting a guest down: how long its containers may take, telling the guest when it has less, and waiting for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from machine import wait
from machine.docker import api
from machine.driver import Driver, State
from machine.errors import DockerFailed, MachineError, WaitTimeout
from machine.instance import Instance
from machine.progress import Progress

# Seconds, for a guest whose containers end at once, or take Docker's usual time.
TIMEOUT = 60.0
# What Docker gives a container, in seconds, unless its --stop-timeout says otherwise; -1 is as many as it takes.
USUAL = 10
LONGEST = 86400
# A guest that is still booting doesn't feel the power button: it is pressed again after so many seconds.
PRESS_AGAIN = 10.0
# Seconds, for asking Docker about all containers: a guest that hangs is shut down all the same.
ASKING = 15.0
# How much of the whole time the guest's Docker may have; the rest is for its disk and the hypervisor.
SHARE = 0.8
# The script `stop` of machineos looks there.
_TELL = "[ ! -d /run/machineos ] || echo {seconds} >/run/machineos/stop-timeout"


@dataclass(frozen=True)
class Slowest:
    """The running container that may take longest to stop. seconds: its --stop-timeout, LONGEST for -1."""

    name: str = ""
    seconds: int = USUAL

    def __str__(self) -> str:
        how_long = "as long as it takes" if self.seconds == LONGEST else f"up to {self.seconds} s"
        return f"the container {self.name} may take {how_long}"


def shut_down(instance: Instance, progress: Progress, *, timeout: float | None) -> None:
    """Press the power button and wait until the machine is off.

    timeout in seconds, for all of it: containers that may take longer are killed before. None: as long as the slowest
    container may take, and TIMEOUT more. Raises WaitTimeout.
    """
    slowest = _slowest(instance)
    progress.phase("shutting down" if slowest.seconds <= USUAL else f"shutting down: {slowest}")
    if timeout is None:
        await_off(instance.driver, timeout=TIMEOUT + max(0, slowest.seconds - USUAL))
        return
    share = max(1, int(timeout * SHARE))
    if slowest.seconds > share:
        progress.note(f"{slowest}, but --timeout allows {share} s: then it is killed")
        _tell(instance, share)
    await_off(instance.driver, timeout=timeout)


def await_off(driver: Driver, *, timeout: float) -> None:
    """Press the power button until the machine is off. timeout in seconds. Raises WaitTimeout."""
    pressed = -PRESS_AGAIN

    def is_off() -> bool:
        nonlocal pressed
        if driver.state() is State.STOPPED:
            return True
        if time.monotonic() - pressed > PRESS_AGAIN:
            driver.stop()
            pressed = time.monotonic()
        return False

    try:
        what = "the machine to shut down"
        wait.until(is_off, timeout=timeout, what=what, details=driver.diagnosis, pause=driver.pause)
    except WaitTimeout as error:
        error.hint = f"machine kill {driver.machine.name}"
        raise


def _slowest(instance: Instance) -> Slowest:
    """Ask Docker for the slowest container. If Docker doesn't answer, containers get the usual time."""
    found = Slowest()
    if instance.driver.state() is not State.RUNNING:
        return found
    deadline = time.monotonic() + ASKING
    with contextlib.suppress(MachineError):
        client = instance.docker(ASKING / 3)
        for key, name in _running(client):
            with contextlib.suppress(DockerFailed):  # one that has ended meanwhile
                if (seconds := _stop_timeout(client, key)) > found.seconds:
                    found = Slowest(name, seconds)
            if time.monotonic() > deadline:
                break
    return found


def _running(client: api.Client) -> Iterator[tuple[str, str]]:
    """The id and the name of each container. One that others link to has names like /web/db, too."""
    answer = client.get("/containers/json")
    for container in answer if isinstance(answer, list) else []:
        if (key := container.get("Id")) and (names := container.get("Names")):
            yield str(key), min(map(str, names), key=lambda name: name.count("/")).lstrip("/")


def _stop_timeout(client: api.Client, key: str) -> int:
    """The container's --stop-timeout in seconds; Docker leaves the key out, or null, where it wasn't given."""
    answer = client.get(f"/containers/{quote(key)}/json")
    seconds = answer["Config"].get("StopTimeout") if isinstance(answer, dict) else None
    if seconds is None:
        return USUAL
    return min(int(seconds), LONGEST) if seconds >= 0 else LONGEST


def _tell(instance: Instance, seconds: int) -> None:
    """Have machineos end its containers in time. Other systems, or ones that SSH doesn't reach, take their own time."""
    with contextlib.suppress(MachineError):
        instance.shell().run(["sh", "-c", _TELL.format(seconds=seconds)], timeout=ASKING)

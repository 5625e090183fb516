"""Upgrade a machine's system: a new image for machineos, new packages for other systems."""

from __future__ import annotations

import contextlib
import dataclasses

from machine import lifecycle, store
from machine.driver import State
from machine.errors import MachineError, Usage
from machine.guest import provision
from machine.images import cache, users
from machine.instance import changing, load, running
from machine.progress import Progress


def upgrade(name: str, progress: Progress, *, timeout: float = lifecycle.START_TIMEOUT) -> str:
    """Returns what was done, "" when the machine is up to date. timeout in seconds, for the start.

    A machine whose new image doesn't come up gets its old one back. Raises Usage, NotRunning, WaitTimeout and others.
    """
    instance = load(name)
    machine = instance.machine
    if not machine.image or cache.is_cloud_image(machine.image):
        return _upgrade_packages(name, progress)
    kind = _name(machine.image)
    newest = cache.current(kind, instance.driver.architecture())
    if newest.digest == machine.image:
        return ""
    cache.verify(newest)
    state = instance.driver.state()
    if state not in {State.RUNNING, State.STOPPED}:
        raise Usage(f'the machine "{name}" is {state.lower()}', hint=f"machine start {name}")
    if state is State.RUNNING:
        lifecycle.stop(name, progress)
    _switch(name, newest.digest)
    if state is State.RUNNING:
        try:
            lifecycle.start(name, progress, timeout=timeout)
        except MachineError as error:
            progress.note("the machine doesn't start with the new image: going back to the old one")
            with contextlib.suppress(MachineError):
                lifecycle.kill(name, progress)
            _switch(name, machine.image)
            lifecycle.start(name, progress, timeout=timeout)
            error.hint = f"it runs with its old image again; see why: machine logs --previous {name}"
            raise
    return f"{kind} {_version(machine.image)} -> {_version(newest.digest)}"


def _upgrade_packages(name: str, progress: Progress) -> str:
    return "; ".join(provision.upgrade(running(name), progress))


def _switch(name: str, digest: str) -> None:
    with changing(name) as instance:
        users.note(digest)
        store.save(dataclasses.replace(instance.machine, image=digest))
    users.forget(instance.machine.image)


def _name(digest: str) -> str:
    about = cache.find_digest(digest)
    return about.name if about else "machineos"


def _version(digest: str) -> str:
    about = cache.find_digest(digest)
    return f"{about.version if about else ''} ({digest[:12]})".strip()

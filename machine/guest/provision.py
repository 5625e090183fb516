"""Bringing Docker and its settings on a machine in line with what was asked for.

What a system needs is in `provisioners` and `distributions`, a class for each. Each step looks before it acts, so a
second run changes nothing, and one after a failure goes on where that stopped.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from machine import wait
from machine.docker import daemon_json, reconfigure
from machine.errors import DockerFailed, MachineError
from machine.guest.steps import Steps
from machine.instance import Instance
from machine.spec import Machine

if TYPE_CHECKING:
    from machine.guest.provisioners import Provisioner
    from machine.progress import Progress

# Seconds, from the daemon's start.
DOCKER_TIMEOUT = 60.0


def provision(instance: Instance, progress: Progress) -> list[str]:
    """Set up Docker and its settings, and wait until Docker answers; returns the changes.

    Raises SSHFailed, ToolFailed, MachineError for an unknown system.
    """
    return _changed(instance, progress, lambda provisioner, steps: provisioner.provision(steps))


def upgrade(instance: Instance, progress: Progress) -> list[str]:
    """Upgrade Docker to the newest package of the machine's system; returns the changes."""
    return _changed(instance, progress, lambda provisioner, steps: provisioner.upgrade(steps))


def _changed(instance: Instance, progress: Progress, work: Callable[[Provisioner, Steps], None]) -> list[str]:
    steps = Steps(progress)
    with steps.step("finding out its distribution"):
        provisioner = find(instance)
    work(provisioner, steps)
    await_docker(instance, progress)
    return steps.changed


def check(instance: Instance, progress: Progress) -> None:
    """Check settings that a booted machine may have refused silently. Raises MachineError."""
    machine = instance.machine
    if machine.hosts or machine.sysctls:
        find(instance).settle(Steps(progress))
    config = json.loads(daemon_json.content(machine))
    if "storage-driver" in config:
        reconfigure.check_storage(instance.docker(), config)


def adjust(instance: Instance, target: Machine, progress: Progress, *, force: bool) -> reconfigure.Outcome:
    """Give the running machine the settings of target. force: even if containers must stop.

    Returns what was done to Docker. After EngineRefused, CheckFailed and other errors the machine is unchanged.
    """
    steps = Steps(progress)
    with steps.step("finding out its distribution"):
        provisioner = find(wanted := Instance(target, instance.folder))
    machine = instance.machine
    resettled = (machine.hosts, machine.sysctls) != (target.hosts, target.sysctls)
    if resettled:
        _settle(provisioner, machine, steps)
    if machine.engine == target.engine:
        return reconfigure.Outcome.UNCHANGED
    client = wanted.docker()
    try:
        outcome = reconfigure.Reconfiguration(
            client, provisioner.remote, provisioner.service, provisioner.engine_files(), progress
        ).run(force=force)
    except BaseException:
        if resettled:
            _settle_back(provisioner, machine, steps)
        raise
    provisioner.took_settings()
    return outcome


def _settle(provisioner: Provisioner, before: Machine, steps: Steps) -> None:
    """Set host names and kernel settings; if that fails, restore the old ones."""
    try:
        provisioner.settle(steps)
    except BaseException:
        _settle_back(provisioner, before, steps)
        raise


def _settle_back(provisioner: Provisioner, before: Machine, steps: Steps) -> None:
    """Restore the old settings; if that fails too, the first error is the one to report."""
    provisioner.machine = before
    with contextlib.suppress(MachineError):
        provisioner.settle(steps)


def send_certificates(instance: Instance, progress: Progress) -> None:
    """Send the server certificate in its folder to a running machine. Containers keep running."""
    steps = Steps(progress)
    with steps.step("sending the certificate"):
        find(instance).send_certificates(steps)
    await_docker(instance, progress)


def find(instance: Instance) -> Provisioner:
    """The provisioner for the machine's system, by its /etc/os-release (os-release(5)). Raises MachineError."""
    from machine.guest.distributions import KNOWN

    remote = instance.shell()
    about = _os_release(remote.read("/etc/os-release") or remote.read("/usr/lib/os-release") or "")
    # The system itself first, then those that it says it is like, the nearest first.
    for identity in [about.get("ID", ""), *about.get("ID_LIKE", "").split()]:
        for kind in KNOWN:
            if identity in kind.ids:
                return kind(instance.driver, remote)
    system = about.get("PRETTY_NAME") or about.get("ID") or "it has no /etc/os-release"
    raise MachineError(
        f"unsupported distribution: {system}",
        hint="install Docker on it yourself and use the driver none: machine create --driver none --url tcp://…",
    )


def await_docker(instance: Instance, progress: Progress) -> None:
    what = f"Docker to answer on {instance.address.url}"
    progress.phase(f"waiting for {what}")
    last = ""

    def answers() -> bool:
        nonlocal last
        try:
            return instance.docker(5).ping()
        except DockerFailed as error:  # until the server has read its new certificate, the old one is refused
            last = error.message
            return False

    wait.until(answers, timeout=DOCKER_TIMEOUT, what=what, details=lambda: last)


def _os_release(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip().strip("\"'") for key, _, value in pairs}

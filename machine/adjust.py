"""Change the settings of an existing machine: at once if it runs, else at its next start."""

from __future__ import annotations

from machine import settings, store
from machine.docker.reconfigure import Outcome
from machine.driver import State
from machine.errors import MachineError, Usage
from machine.guest import provision
from machine.instance import changing
from machine.progress import Progress
from machine.spec import Machine

DONE = {
    Outcome.UNCHANGED: "",
    Outcome.RELOADED: "Docker reloaded its settings.",
    Outcome.RESTARTED: "Docker was restarted with its new settings.",
    Outcome.KEPT_CONTAINERS: "Docker was restarted with its new settings; containers kept running.",
    Outcome.STOPPED_CONTAINERS: "Docker was restarted with its new settings; its containers were stopped.",
}


def adjust(name: str, edits: settings.Edits, progress: Progress, *, force: bool = False) -> str:
    """Returns what came of it, in a sentence or two, "" when the machine is so already.

    force: also when containers stop for it. What the machine doesn't take isn't stored. Raises Usage, EngineRefused,
    CheckFailed and others.
    """
    with changing(name) as instance:
        machine = instance.machine
        target = settings.edited(machine, edits, progress.note)
        if target == machine:
            return ""
        driver = instance.driver
        if not driver.kind.is_provisioned:
            raise Usage(
                f'the machine "{name}" is only the URL of a Docker daemon',
                hint="change its settings on the host itself",
            )
        state = driver.state()
        if state is State.STOPPED and driver.kind.is_ours:
            store.save(target)
            return f"The settings take effect at the next start: machine start {name}"
        if state is not State.RUNNING:
            raise MachineError(f'the machine "{name}" is {state.lower()}', hint=f"machine start {name}")
        outcome = provision.adjust(instance, target, progress, force=force)
        store.save(target)
    return " ".join(filter(None, [_guest(machine, target), DONE[outcome]]))


def _guest(machine: Machine, target: Machine) -> str:
    changed = [
        word
        for word, before, now in (
            ("host names", machine.hosts, target.hosts),
            ("kernel settings", machine.sysctls, target.sysctls),
        )
        if before != now
    ]
    return f"{' and '.join(changed).capitalize()} changed now." if changed else ""

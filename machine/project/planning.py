"""What `machine up` would do to each machine of a project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from machine import probe, store
from machine.errors import CheckFailed, MachineError
from machine.instance import Instance, load
from machine.project import members, provisioning, record
from machine.project.changes import Changes, compare
from machine.project.load import Project, Wanted
from machine.project.record import Record
from machine.project.steps import probed
from machine.spec import Machine, State

# Seconds for a hypervisor to tell a machine's state.
_TIMEOUT = 20.0


@dataclass(frozen=True)
class Todo:
    """What there is to do for a machine. machine: None while there is none. state: None where it wasn't told.

    steps: the names of the provisioning steps to run. probes: whether its probes are to be asked.
    """

    wanted: Wanted
    machine: Machine | None = None
    record: Record = field(default_factory=Record)
    changes: Changes = field(default_factory=Changes)
    state: State | None = None
    recreate: bool = False
    steps: tuple[str, ...] = ()
    probes: bool = False

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def is_new(self) -> bool:
        return self.machine is None

    @property
    def starts(self) -> bool:
        return not self.is_new and self.state is not State.RUNNING

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do, as far as it can be done without --recreate."""
        acts = self.is_new or self.recreate or self.starts or self.steps or self.probes
        return not (acts or self.changes.words)


@dataclass(frozen=True)
class Plan:
    """surplus: machines of the project that its file has no more."""

    project: Project
    todos: tuple[Todo, ...]
    surplus: tuple[Machine, ...] = ()

    @property
    def is_done(self) -> bool:
        return all(todo.is_done and not todo.changes.fixed for todo in self.todos) and not self.surplus


def planned(project: Project, names: Sequence[str] = (), recreate: Sequence[str] = ()) -> Plan:
    """Raises Usage for a name that the file doesn't have, CheckFailed where somebody else has it in the store."""
    again = {one.name for one in project.chosen(recreate)} if recreate else set()
    chosen = project.chosen(names)
    there = {one.name: _member(project, one) for one in chosen if store.exists(one.name)}
    states = _states([instance for instance, _ in there.values()])
    todos = []
    for one in chosen:
        if one.name not in there:
            todos.append(Todo(one, steps=_steps(one, Record()), probes=bool(one.probes)))
            continue
        instance, known = there[one.name]
        changes = compare(instance.machine, one, known)
        state, anew = states.get(one.name), one.name in again
        # What runs at each boot runs again; so do all steps in a new machine.
        booted = known if state in {State.RUNNING, State.PAUSED, State.SAVED} else replace(known, booted={}, probed="")
        steps = _steps(one, Record() if anew else booted)
        probes = bool(one.probes) and (bool(steps) or anew or booted.probed != probed(one.probes))
        todos.append(Todo(one, instance.machine, known, changes, state, anew, steps, probes))
    wanted = {one.name for one in project.machines}
    surplus = () if names else tuple(m for m in members.of(project.name, project.file) if m.name not in wanted)
    return Plan(project, tuple(todos), surplus)


def _steps(wanted: Wanted, known: Record) -> tuple[str, ...]:
    return tuple(step.name for step in provisioning.pending(replace(known, steps=wanted.steps)))


def _member(project: Project, wanted: Wanted) -> tuple[Instance, Record]:
    """Raises CheckFailed for a machine of somebody else: names are unique in the store."""
    instance = load(wanted.name)
    known = record.read(instance.folder)
    machine = instance.machine
    if members.belongs(machine, known, project.name, project.file):
        return instance, known
    if machine.project:
        whose = f'it belongs to the project "{machine.project}"' + (f" of {known.file}" if known.file else "")
    else:
        whose = "it was made by hand"
    raise CheckFailed(
        f'the name "{wanted.name}" is taken: {whose}',
        hint=f"give the machine another name in {project.file.name}, or remove the other: machine rm {wanted.name}",
    )


def _states(instances: Sequence[Instance]) -> dict[str, State]:
    """Of all at once. Raises the error of one that can't be asked."""
    found: dict[str, State] = {}
    failed: list[MachineError] = []

    def job(instance: Instance) -> Callable[[], None]:
        def ask() -> None:
            try:
                found[instance.name] = instance.driver.state()
            except MachineError as error:
                failed.append(error)

        return ask

    for instance in instances:
        assert instance.driver  # imported once, and not in each thread
    probe.together([job(instance) for instance in instances], timeout=_TIMEOUT)
    if failed:
        raise failed[0]
    return found

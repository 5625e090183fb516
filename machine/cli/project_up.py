"""What `machine up` does."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from machine import registry, store
from machine.cli import create, set
from machine.cli.life import on_each
from machine.errors import CheckFailed, before_anything
from machine.instance import changing
from machine.progress import Display, Progress
from machine.project import provisioning, record
from machine.project.changes import Changes
from machine.project.planning import Plan, Todo
from machine.project.record import Record
from machine.spec import Machine, State


def up(plan: Plan, *, prune: bool, force: bool, offline: bool, timeout: float, quiet: bool) -> None:
    """Do what the plan says, for several machines at once. Errors of one don't stop the others."""
    _check(plan)
    busy = [todo for todo in plan.todos if not todo.is_done]
    for todo in plan.todos:
        _tell_of_fixed(todo)
        if todo.is_done:
            _note(plan, todo)
    gone = plan.surplus if prune else ()
    if not busy and not gone:
        on_each([], quiet, lambda name, shown: "")
        if not quiet:
            print(f"The project {plan.project.name} is as {plan.project.file.name} says: there is nothing to do.")
        return
    with Display(quiet=quiet) as display:
        images = _images(busy, display, offline=offline)
    todos = {todo.name: todo for todo in busy}

    def work(name: str, shown: Progress) -> str:
        if name not in todos:
            return _removed(name, shown)
        return _done(plan, todos[name], images, shown, force=force, timeout=timeout)

    on_each([*todos, *(machine.name for machine in gone)], quiet, work)


def _check(plan: Plan) -> None:
    """Raise CheckFailed for steps and probes where there is no way in."""
    for todo in plan.todos:
        driver = todo.machine.driver if todo.machine else _driver(create.typed(todo.wanted.options))
        if (todo.wanted.steps or todo.wanted.probes) and not registry.load(driver).kind.has_ssh:
            raise CheckFailed(
                f'"{todo.name}" can\'t have provision or probes: its driver {driver} has no SSH', hint="machine plan"
            )


def _tell_of_fixed(todo: Todo) -> None:
    if todo.changes.fixed and not todo.recreate:
        words = "; ".join(todo.changes.fixed)
        print(f"note: {todo.name} can't be changed in this: {words}", file=sys.stderr)
        print(f"Next: machine up --recreate {todo.name}", file=sys.stderr)


def _images(todos: list[Todo], display: Display, *, offline: bool) -> dict[tuple[str, str], str]:
    """The digests of the images that new machines boot: each is fetched once, before any machine is made."""
    found: dict[tuple[str, str], str] = {}
    with before_anything():
        for todo in todos:
            if todo.is_new or todo.recreate:
                asked = create.typed(todo.wanted.options)
                if _image(asked) not in found and registry.load(_driver(asked)).kind.is_ours:
                    asked["offline"] = asked["offline"] or offline
                    found[_image(asked)] = create.obtained(asked, display)
    return found


def _image(asked: dict[str, Any]) -> tuple[str, str]:
    return asked["image"], asked["arch"] or ""


def _driver(asked: dict[str, Any]) -> str:
    from machine.cli import driver_options

    return asked["driver"] or driver_options.default_driver()


def _removed(name: str, shown: Progress) -> str:
    from machine import lifecycle

    lifecycle.remove(name, shown)
    return f"Successfully removed {name}"


def _done(
    plan: Plan, todo: Todo, images: dict[tuple[str, str], str], shown: Progress, *, force: bool, timeout: float
) -> str:
    if todo.is_new or todo.recreate:
        if todo.recreate:
            _removed(todo.name, shown)
        _made(plan, todo, images, shown, timeout)
        _provisioned(todo.name, shown)
        return f'Machine "{todo.name}" was made.'
    # First: a start runs the steps that the file has now.
    _note(plan, todo)
    told = _changed(todo, shown, force=force, timeout=timeout)
    _provisioned(todo.name, shown)
    told += [f"These steps ran: {', '.join(todo.steps)}."] if todo.steps else []
    told += ["It works."] if todo.probes else []
    return f'Machine "{todo.name}": {" ".join(filter(None, told))}'


def _provisioned(name: str, shown: Progress) -> None:
    """Run the steps and probes that are left."""
    with changing(name) as instance:
        provisioning.run(instance, shown)
        provisioning.probe(instance, shown)


def _made(plan: Plan, todo: Todo, images: dict[tuple[str, str], str], shown: Progress, timeout: float) -> Machine:
    from machine.create import create as make

    asked = create.typed(todo.wanted.options)
    drafted = create.drafted(todo.name, images.get(_image(asked), ""), asked)
    drafted = replace(drafted, project=plan.project.name)
    made = make(drafted, shown, timeout=timeout, needs_mounts=bool(asked["mount"]))
    _note(plan, todo)
    return made


def _changed(todo: Todo, shown: Progress, *, force: bool, timeout: float) -> list[str]:
    """A suspended machine takes no changes, so it continues first; a stopped one is changed before it starts."""
    start = partial(_started, todo, shown, timeout)
    change = partial(_applied, todo.name, todo.changes, shown, force)
    if not todo.starts:
        return change()
    if todo.state is State.STOPPED:
        change()
        return [*(["It was changed."] if todo.changes.words else []), start()]
    return [start(), *change()]


def _started(todo: Todo, shown: Progress, timeout: float) -> str:
    from machine import lifecycle

    lifecycle.start(todo.name, shown, timeout=timeout)
    return "It was started."


def _applied(name: str, changes: Changes, shown: Progress, force: bool) -> list[str]:
    from machine import mounts

    done = []
    if changes.unmount:
        done.append(mounts.remove(name, list(changes.unmount), shown, force=force))
    if changes.mount:
        done.append(mounts.add(name, changes.mount, shown))
    if changes.sizes:
        done.append(set.resized(name, changes.sizes, shown))
    if changes.edits:
        done.append(set.adjusted(name, changes.edits, shown, force))
    if changes.host_network_ports is not None:
        done.append(set.forwarded(name, changes.host_network_ports))
    return done


def _note(plan: Plan, todo: Todo) -> None:
    """Have the machine's folder know what the file said. What can't be changed is kept as it was."""
    options = dict(todo.wanted.options)
    if todo.record.file and not todo.recreate:
        for text in todo.changes.fixed:
            key = text.partition(":")[0]
            options.pop(key, None)
            options |= {key: todo.record.options[key]} if key in todo.record.options else {}
    kept = Record() if todo.recreate else todo.record
    file = str(plan.project.file)
    wanted = replace(kept, file=file, options=options, steps=todo.wanted.steps, probes=todo.wanted.probes)
    folder = store.folder_of(todo.name)
    if wanted != todo.record or todo.recreate:
        record.write(folder, wanted)
    if todo.machine and not todo.recreate and todo.machine.project != plan.project.name:
        with changing(todo.name) as instance:
            store.save(replace(instance.machine, project=plan.project.name))

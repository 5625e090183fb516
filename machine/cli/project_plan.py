"""What `machine plan` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from machine import paths, resources
from machine.cli import create
from machine.errors import MachineError
from machine.instance import Instance
from machine.project.planning import Plan, Todo
from machine.spec import DOCKER_PORT, Machine, State
from machine.store import folder_of


def lines(plan: Plan) -> list[str]:
    project = plan.project
    found = [f"Project {project.name}, by {project.file}"]
    if project.environment:
        found.append(f"It reads from this computer's environment: {', '.join(project.environment)}")
    for todo in plan.todos:
        found += _of(todo)
    found += [f"- {machine.name}: it isn't in the file; machine up --prune removes it" for machine in plan.surplus]
    return [*found, _sum(plan)]


def _of(todo: Todo) -> list[str]:
    if todo.is_new or todo.recreate:
        asked = _drafted(todo)
        what = "is removed and made anew" if todo.recreate else "is made"
        effects = [*_effects(todo, asked), *_steps(todo)]
        return [f"+ {todo.name} {what}: {_sizes(asked)}", *(f"    {text}" for text in effects)]
    found = []
    if not todo.is_done:
        found.append(f"~ {todo.name} {_what(todo)}")
        found += [f"    {text}" for text in (*todo.changes.words, *_steps(todo))]
    if todo.changes.fixed:
        found.append(f"! {todo.name} can't be changed in this: machine up --recreate {todo.name}")
        found += [f"    {text}" for text in todo.changes.fixed]
    return found or [f"  {todo.name} is as the file says"]


def _steps(todo: Todo) -> list[str]:
    found = [f"runs {', '.join(todo.steps)}"] if todo.steps else []
    return found + ([f"waits for {', '.join(probe.name for probe in todo.wanted.probes)}"] if todo.probes else [])


def _what(todo: Todo) -> str:
    if not todo.starts and not todo.changes.words:
        return "is provisioned" if todo.steps else "is asked whether it works"
    if not todo.starts:
        return "is changed, at once where its driver can, else at its next start"
    resumed = "continues" if todo.state in {State.SAVED, State.PAUSED} else "is started"
    return f"is changed, and {resumed}" if todo.changes.words else resumed


def _sum(plan: Plan) -> str:
    new = sum(todo.is_new or todo.recreate for todo in plan.todos)
    changed = sum(not todo.is_done for todo in plan.todos) - new
    fixed = sum(bool(todo.changes.fixed) and not todo.recreate for todo in plan.todos)
    counts = [f"{new} to make"] * bool(new) + [f"{changed} to change, start or provision"] * bool(changed)
    counts += [f"{fixed} that can't be changed"] * bool(fixed)
    counts += [f"{len(plan.surplus)} to remove with --prune"] * bool(plan.surplus)
    return f"{', '.join(counts).capitalize()}: machine up" if counts else "There is nothing to do."


def objects(plan: Plan) -> list[dict[str, Any]]:
    """The same as data. action: "create", "recreate", "change", "start", "provision", "remove" (with --prune) or ""."""
    found = [
        {
            "name": todo.name,
            "action": _action(todo),
            "changes": list(todo.changes.words),
            "steps": list(todo.steps),
            "fixed": list(todo.changes.fixed),
            "effects": list(_effects(todo, _drafted(todo))) if todo.is_new else [],
        }
        for todo in plan.todos
    ]
    gone = {"action": "remove", "changes": [], "steps": [], "fixed": [], "effects": []}
    return found + [{"name": machine.name, **gone} for machine in plan.surplus]


def _action(todo: Todo) -> str:
    if todo.recreate or todo.is_new:
        return "recreate" if todo.recreate else "create"
    return "change" if todo.changes.words else "start" if todo.starts else "provision" if not todo.is_done else ""


def _drafted(todo: Todo) -> Machine:
    return create.drafted(todo.name, "", create.typed(todo.wanted.options))


def _sizes(asked: Machine) -> str:
    if not asked.memory_mib:
        return f"driver {asked.driver}"
    memory, disk = resources.human(asked.memory_mib), resources.human(asked.disk_mib)
    return f"driver {asked.driver}, {memory} of memory, {asked.cpus} CPUs, a disk of up to {disk}"


def _effects(todo: Todo, asked: Machine) -> Iterator[str]:
    """What making the machine does to this computer."""
    instance = Instance(asked, folder_of(asked.name))
    driver = instance.driver
    yield f"writes {_short(str(instance.folder.path))}"
    if driver.kind.is_ours:
        image = str(create.typed(todo.wanted.options)["image"])
        yield f"boots the image {image}, which is {_where(image, asked.architecture)}"
    if driver.on_loopback():
        yield f"opens ports on an address 127.77.x.y of its own: {DOCKER_PORT}, 22, and what containers publish"
    elif not driver.kind.is_ours:
        yield f"uses {instance.url}"
    for text in asked.mounts:
        source, _, rest = text.partition(":")
        yield f"shares {_short(source)}" + (" to be read only" if rest.endswith("ro") else " to be written")
    if asked.mounts == () and driver.kind.is_ours:
        yield "shares no folder"
    if asked.network:
        yield f"joins the network {asked.network}, where machines reach each other by name"


def _where(text: str, architecture: str) -> str:
    from machine.images import cache, catalog, downloads

    try:
        if text == create.MACHINEOS:
            cache.current(text, architecture)
            return "in the cache"
        if "://" in text:
            return "in the cache" if catalog.cached(downloads.source(text)) else "fetched"
        for entry in catalog.entries(architecture or None):
            if entry.name == text:
                return "in the cache" if catalog.cached(entry.source) else f"fetched from {entry.source.url}"
        if paths.expanded(text).is_file():
            return "copied into the cache"
        cache.find(text)
    except MachineError as error:
        return f"not there: {error.message}"
    return "in the cache"


def _short(path: str) -> str:
    home = str(paths.user_home())
    return f"~{path.removeprefix(home)}" if path == home or path.startswith(f"{home}/") else path

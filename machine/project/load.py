"""From machine.yaml to the machines that it wants."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import settings, spec
from machine.errors import MachineError, Usage
from machine.project import arguments, bases, reading, templates
from machine.project import schema as schemas
from machine.project.steps import Probe, Step
from machine.project.templates import nearest
from machine.project.values import Mistakes, Place, Value, merged

# The keys of a machine that are no options of create.
OWN = ("count", "provision", "probes")
# What is read before templates are filled in.
PARAMETERS = ("args", "env", "base")


@dataclass(frozen=True)
class Wanted:
    """A machine that the file wants.

    options: what the file says of it, by the names of create's options: scalars, or lists of texts. group: its name in
    the file, which is another one than its own where there is a count.
    """

    name: str
    group: str
    options: dict[str, Any]
    steps: tuple[Step, ...] = ()
    probes: tuple[Probe, ...] = ()

    def items(self, option: str) -> tuple[str, ...]:
        return tuple(map(str, self.options.get(option, ())))


@dataclass(frozen=True)
class Project:
    """file: an absolute path. environment: the variables of the host that it lists."""

    name: str
    file: Path
    machines: tuple[Wanted, ...]
    environment: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.file.parent

    def chosen(self, names: Sequence[str]) -> list[Wanted]:
        """The machines of these names, or groups; all when there are none. Raises Usage."""
        known = {word for machine in self.machines for word in (machine.name, machine.group)}
        for name in names:
            if name not in known:
                raise Usage(
                    f'{self.file.name} has no machine "{name}":{nearest(name, sorted(known))}', hint="machine plan"
                )
        return [one for one in self.machines if not names or one.name in names or one.group in names]


def load(file: Path, schema: dict[str, Any], args: Mapping[str, str], environ: Mapping[str, str]) -> Project:
    """schema: what the file may hold. args: as typed. environ: where its variables are looked up.

    Raises CheckFailed with all mistakes of the file and what it is based on.
    """
    mistakes = Mistakes()
    root = bases.whole(file, mistakes)
    parameters = Value({key: value for key, value in root.items() if key in PARAMETERS}, root.place, keys=root.keys)
    schemas.check(parameters, _part(schema, PARAMETERS), mistakes)
    mistakes.check()
    names = arguments.names(parameters, args, environ, mistakes)
    root = templates.filled(root.without(PARAMETERS), names, mistakes)
    schemas.check(root, schema, mistakes)
    # What the schema can't tell is told at the same time.
    machines = [wanted for name, value in _machines(root) for wanted in _wanted(name, value, mistakes)]
    _check_names(root, machines, mistakes)
    mistakes.check()
    return Project(_name(root, file), file, tuple(machines), tuple(names.env))


def name(file: Path) -> str:
    """The project's name alone: the rest of the file may be wrong. Raises CheckFailed for what isn't YAML."""
    mistakes = Mistakes()
    return _name(bases.whole(file, mistakes), file)


def _part(schema: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The schema of these keys alone."""
    return {**schema, "properties": {key: schema["properties"][key] for key in keys}, "required": []}


def _name(root: Value, file: Path) -> str:
    value = root.get("name")
    return str(value.data) if value else default_name(file)


def default_name(file: Path) -> str:
    """The folder's name, without what a name can't hold."""
    return re.sub(r"[^a-z0-9.-]+", "-", file.parent.name.lower()).strip("-.") or "project"


def _machines(root: Value) -> list[tuple[str, Value]]:
    """Each with what all have."""
    defaults = root.get("defaults")
    found = []
    for name, own in (root.get("machines") or Value({}, root.place)).items():
        value = own if isinstance(own.data, dict) else Value({}, own.place)
        found.append((name, merged(defaults, value) if defaults and isinstance(defaults.data, dict) else value))
    return found


def _wanted(group: str, value: Value, mistakes: Mistakes) -> list[Wanted]:
    count = value.get("count")
    numbers = range(1, count.data + 1) if count and isinstance(count.data, int) else None
    names = [f"{group}-{number}" for number in numbers] if numbers else [group]
    options = {key: item.plain() for key, item in value.items() if key not in OWN}
    for key, item in value.items():
        for single in item.values() or [item]:
            _check_item(key, single, mistakes)
    steps, probes = reading.steps(value, mistakes), reading.probes(value)
    return [Wanted(name, group, options, steps, probes) for name in names]


def _check_item(key: str, value: Value, mistakes: Mistakes) -> None:
    """What create would refuse, whatever the driver and this host are."""
    if (check := _CHECKS.get(key)) and isinstance(value.data, str | int | float):
        try:
            check(str(value.data))
        except MachineError as error:
            hint = "" if "machine create" in error.hint or not error.hint else f" ({error.hint})"
            mistakes.add(value.place, f"{key}: {error.message}{hint}")


def _nobody(**changed: Any) -> spec.Machine:
    return spec.Machine("x", "", "", "", "", 0, 0, 0, **changed)


def _engine(name: str) -> Callable[[str], None]:
    return lambda text: settings.check(_nobody(engine=spec.Engine(**{name: (text,)})))


def _driver(name: str) -> None:
    from machine import registry

    if name not in registry.names():
        raise Usage(f'there is no driver "{name}":{nearest(name, registry.creatable())}')


def _mount(text: str) -> None:
    from machine.folders import mount_spec

    mount_spec.resolved([text])


_CHECKS: dict[str, Callable[[str], None]] = {
    "driver": _driver,
    "engine-opt": _engine("options"),
    "engine-label": _engine("labels"),
    "engine-env": _engine("environment"),
    "engine-registry-mirror": _engine("registry_mirrors"),
    "engine-insecure-registry": _engine("insecure_registries"),
    "host": lambda text: settings.check(_nobody(hosts=(text,))),
    "sysctl": lambda text: settings.check(_nobody(sysctls=(text,))),
    "mount": _mount,
}


def _check_names(root: Value, machines: list[Wanted], mistakes: Mistakes) -> None:
    places = (root.get("machines") or root).keys
    seen: dict[str, str] = {}
    for one in machines:
        place = places.get(one.group, Place("", 1, 1))
        try:
            spec.check_new_name(one.name)
        except Usage as error:
            mistakes.add(place, f"{error.message} ({error.hint})" if "create" not in error.hint else error.message)
        if (other := seen.setdefault(one.name.lower(), one.group)) != one.group:
            mistakes.add(place, f'"{one.group}" and "{other}" both make a machine "{one.name}"')

"""The difference between what a file wants of a machine and what the machine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from machine import resources, spec
from machine.project.load import Wanted
from machine.project.record import Record
from machine.resources import human
from machine.settings import Edit, Edits

# The options that `machine set` changes: by the field of Machine, or of its Engine.
SIZES = {"memory": "memory_mib", "disk": "disk_mib"}
ENGINE = {
    "engine-opt": "options",
    "engine-label": "labels",
    "engine-env": "environment",
    "engine-registry-mirror": "registry_mirrors",
    "engine-insecure-registry": "insecure_registries",
}
GUEST = {"host": "hosts", "sysctl": "sysctls"}
_STORAGE, _CPUS, _MOUNT, _HOST_PORTS = "engine-storage-driver", "cpus", "mount", "no-host-network-ports"
CHANGEABLE = {*SIZES, *ENGINE, *GUEST, _STORAGE, _CPUS, _MOUNT, _HOST_PORTS}


@dataclass(frozen=True)
class Changes:
    """What is to be done to a machine that is there.

    sizes: for `resize`. edits: for `adjust`. mount, unmount: folders, as --mount takes them. host_network_ports: None
    to leave them. fixed: what only a new machine can have, in words. words: all others, in words.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    edits: Edits = field(default_factory=Edits)
    mount: tuple[str, ...] = ()
    unmount: tuple[str, ...] = ()
    host_network_ports: bool | None = None
    fixed: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def compare(machine: spec.Machine, wanted: Wanted, record: Record) -> Changes:
    """What the file doesn't say, and didn't say before, stays as it is: `machine set` may have changed it."""
    asked, before = wanted.options, record.options
    named = asked.keys() | before.keys()
    words: list[str] = []
    sizes = _sizes(machine, asked, words)
    edits = _edits(machine, wanted, before, words)
    mount, unmount = _mounts(machine, asked, before, words) if _MOUNT in named else ((), ())
    ports = not asked.get(_HOST_PORTS, False) if _HOST_PORTS in named else machine.host_network_ports
    if ports != machine.host_network_ports:
        words.append(f"{_HOST_PORTS}: {str(not ports).lower()}")
    fixed = [_fixed(key, before.get(key), asked.get(key)) for key in sorted(named - CHANGEABLE) if record.file]
    shrinks = sizes.get("disk_mib", machine.disk_mib) < machine.disk_mib
    if shrinks:
        del sizes["disk_mib"]
        fixed.append(f"disk: it can't shrink to {asked['disk']}")
    return Changes(
        sizes=sizes,
        edits=edits,
        mount=mount,
        unmount=unmount,
        host_network_ports=ports if ports != machine.host_network_ports else None,
        fixed=tuple(filter(None, fixed)),
        words=tuple(words),
    )


def _sizes(machine: spec.Machine, asked: dict[str, Any], words: list[str]) -> dict[str, int]:
    wanted = {field: resources.mib(str(asked[key])) for key, field in SIZES.items() if key in asked}
    wanted |= {_CPUS: int(asked[_CPUS])} if _CPUS in asked else {}
    # A host that was there before has no sizes of ours.
    changed = {name: size for name, size in wanted.items() if getattr(machine, name) not in {size, 0}}
    for name, size in changed.items():
        was = getattr(machine, name)
        shown = (str(was), str(size)) if name == _CPUS else (human(was), human(size))
        if name != "disk_mib" or size > was:
            words.append(f"{name.removesuffix('_mib')}: {shown[0]} -> {shown[1]}")
    return changed


def _edits(machine: spec.Machine, wanted: Wanted, before: dict[str, Any], words: list[str]) -> Edits:
    found: dict[str, Edit] = {}
    for key, name in {**ENGINE, **GUEST}.items():
        items, earlier = wanted.items(key), tuple(map(str, before.get(key, ())))
        if key == "engine-opt":
            items, earlier = (*items, *_storage(wanted.options)), (*earlier, *_storage(before))
        if not items and not earlier:
            continue
        there: tuple[str, ...] = getattr(machine if key in GUEST else machine.engine, name)
        add = tuple(item for item in items if item not in there)
        # Only what the file asked for before: another item was added by hand.
        remove = tuple(item for item in earlier if item in there and item not in items)
        found[name] = Edit(add, remove)
        words += _listed(key, add, remove)
    return Edits(**found)


def _storage(options: dict[str, Any]) -> tuple[str, ...]:
    return (f"storage-driver={options[_STORAGE]}",) if _STORAGE in options else ()


def _mounts(
    machine: spec.Machine, asked: dict[str, Any], before: dict[str, Any], words: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from machine.folders import mount_spec

    wanted = mount_spec.resolved([str(item) for item in asked.get(_MOUNT, ())])
    earlier = mount_spec.resolved([str(item) for item in before.get(_MOUNT, ())]) if before.get(_MOUNT) else ()
    add = tuple(item for item in wanted if item not in machine.mounts)
    # A file that lists folders says all of them: the home folder, which create shares when nothing is said, goes.
    gone = machine.mounts if asked.get(_MOUNT) else earlier
    remove = tuple(item for item in gone if item in machine.mounts and item not in wanted)
    words += _listed(_MOUNT, add, remove)
    return add, remove


def _listed(key: str, add: Sequence[str], remove: Sequence[str]) -> list[str]:
    return [f"{key}: {', '.join([*(f'+{item}' for item in add), *(f'-{item}' for item in remove)])}"] * bool(
        add or remove
    )


def _fixed(key: str, before: Any, asked: Any) -> str:
    return f"{key}: {_shown(before)} -> {_shown(asked)}" if before != asked else ""


def _shown(value: Any) -> str:
    if value is None:
        return "(not said)"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""A cluster as it was asked for, and its form on disk (clusters/NAME.json). Nothing secret is in it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from machine import files, locks, paths, spec
from machine.errors import StoreDamaged, Usage
from machine.reasons import reason
from machine.spec import Machine

FORMAT = 1
# Raft's own advice (docs.docker.com/engine/swarm/raft): more cost more than they bring.
MOST_MANAGERS = 7
# Seconds for another command that works on the cluster, each sign of life apart.
PATIENCE = 10.0
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_LONGEST = 40


@dataclass(frozen=True)
class Cluster:
    """managers and workers: names of machines. template: a machine as each node is made, without an identity."""

    name: str
    managers: tuple[str, ...]
    workers: tuple[str, ...]
    template: Machine

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.managers + self.workers

    def sized(self, managers: int, workers: int) -> Cluster:
        """The cluster with so many nodes: new ones get the lowest free numbers, and the highest go. Raises Usage."""
        check_sizes(managers, workers)
        return replace(
            self,
            managers=_named(self.managers, f"{self.name}-m", managers),
            workers=_named(self.workers, f"{self.name}-w", workers),
        )


def check_sizes(managers: int, workers: int) -> None:
    """Raises Usage."""
    if not 1 <= managers <= MOST_MANAGERS or workers < 0:
        hint = "--managers 3 --workers 2"
        raise Usage(f"a cluster has 1 to {MOST_MANAGERS} managers, and 0 workers or more", hint=hint)


def _named(names: tuple[str, ...], prefix: str, count: int) -> tuple[str, ...]:
    numbers = sorted(int(name.removeprefix(prefix)) for name in names)[:count]
    free = (number for number in range(1, 1000) if number not in numbers)
    while len(numbers) < count:
        numbers.append(next(free))
    return tuple(f"{prefix}{number}" for number in sorted(numbers))


def check_name(name: str) -> None:
    """Raises Usage."""
    if not _LABEL.fullmatch(name) or len(name) > _LONGEST:
        raise Usage(f'invalid name "{name}" of a cluster: use a-z, 0-9 and dashes', hint="machine cluster create lab")


def folder() -> Path:
    return paths.store() / "clusters"


def _path(name: str) -> Path:
    return folder() / f"{name}.json"


def names() -> list[str]:
    try:
        return sorted(path.stem for path in folder().glob("*.json") if not path.name.startswith("."))
    except OSError:
        return []


def find(name: str) -> Cluster | None:
    """Raises StoreDamaged."""
    path = _path(name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] > FORMAT:
            raise StoreDamaged(f"{path} was written by a newer version of machine", hint="pipx upgrade machine-vm")
        template = spec.loads(json.dumps(data["template"]), path)
        return Cluster(data["name"], tuple(data["managers"]), tuple(data["workers"]), template)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{path} is damaged: {reason(error)}", hint=f"machine ls --filter name={name}-") from error


def load(name: str) -> Cluster:
    """Raises Usage when there is none of that name, StoreDamaged."""
    if (found := find(name)) is None:
        raise Usage(f'there is no cluster "{name}"', hint="machine cluster ls")
    return found


def save(cluster: Cluster) -> None:
    files.make_folder(folder())
    data = {
        "format": FORMAT,
        "name": cluster.name,
        "managers": cluster.managers,
        "workers": cluster.workers,
        "template": json.loads(spec.dumps(cluster.template)),
    }
    files.write(_path(cluster.name), json.dumps(data, indent=2) + "\n")


def remove(name: str) -> None:
    files.remove(_path(name))


@contextlib.contextmanager
def changing(name: str) -> Iterator[None]:
    """Hold the cluster's lock while a verb changes it. Raises WaitTimeout when another one does."""
    files.make_folder(folder())
    path = folder() / f".{name}.lock"
    with locks.held(path, what=f"another command to finish with the cluster {name}", timeout=PATIENCE):
        yield
    if find(name) is None:
        files.remove(path)

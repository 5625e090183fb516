"""A machine as it was asked for, and its form on disk (machine.json).

It holds nothing that changes by itself: whether the machine runs is asked each time.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from machine.errors import StoreDamaged, Usage
from machine.reasons import reason

# Format 1 had no hosts, sysctls, host_network_ports, mounts, architecture, project and network. An earlier
# version reports an unknown field as damage.
FORMAT = 2
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*")
LABEL = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?")
WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|(?:com|lpt)[0-9]", re.IGNORECASE)
# A name is a host name (RFC 1123: 63 characters a label) and a folder's name, and sockets lie in that folder.
NAME_LENGTH = 63

# Where dockerd listens in every guest, and on a machine's address where that port is free.
DOCKER_PORT = 2375

Option = str | int | bool | tuple[str, ...] | None


class State(StrEnum):
    RUNNING = "Running"
    PAUSED = "Paused"
    SAVED = "Saved"
    STOPPED = "Stopped"
    STOPPING = "Stopping"
    STARTING = "Starting"
    ERROR = "Error"


@dataclass(frozen=True)
class Address:
    """Where a machine is reached, from the host's side. It never changes in a machine's life."""

    host: str
    docker_port: int = DOCKER_PORT
    ssh_port: int = 22

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.docker_port}"


@dataclass(frozen=True)
class Engine:
    """What the user asked of the Docker daemon; each item as typed: KEY=VALUE, or a URL."""

    options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """Sizes are in MiB. image is the digest of a cached image, "" where a driver needs none.

    host_network_ports: whether ports of containers with the guest's own network (--network host) are forwarded.
    address is set at create for drivers that take one from the store's loopback block, None where the driver knows it.
    options are the driver's own, by the field names of its Options. hosts and sysctls are items as typed: NAME=IP of
    /etc/hosts, KEY=VALUE of the guest's kernel. mounts, as typed too: DIR[:PATH][:ro].
    architecture: of its processors, as resources.ARCHITECTURES names it; "" is that of the host that it runs on.
    network: the name of that which it shares with other machines, "" for none.
    project: the name of the project whose machine.yaml it came from, "" for a machine that was made by hand.
    """

    name: str
    driver: str
    uuid: str
    mac: str
    image: str
    memory_mib: int
    cpus: int
    disk_mib: int
    tls: bool = True
    tls_sans: tuple[str, ...] = ()
    ssh_user: str = "docker"
    engine: Engine = field(default_factory=Engine)
    address: Address | None = None
    options: dict[str, Option] = field(default_factory=dict)
    created: str = ""
    hosts: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    host_network_ports: bool = True
    mounts: tuple[str, ...] = ()
    architecture: str = ""
    project: str = ""
    network: str = ""


def check_name(name: str) -> None:
    """Raise Usage unless name can be a machine's."""
    if not NAME.fullmatch(name):
        raise Usage(
            f'invalid name "{name}": use letters, digits, dots and dashes, a letter or digit first',
            hint="machine create dev-1",
        )
    if len(name) > NAME_LENGTH:
        raise Usage(f"the name has {len(name)} characters, {NAME_LENGTH} are allowed", hint="choose a shorter name")


def check_new_name(name: str) -> None:
    """Raise Usage unless a new machine can have that name.

    Narrower than check_name, by which older machines go on working: other programs would take these names for
    something else. Each label is one of a host name's (RFC 1123, 2.1); Windows has devices for some names, whatever
    comes after a dot (Microsoft, "Naming Files, Paths, and Namespaces").
    """
    check_name(name)
    labels = name.split(".")
    if not all(map(LABEL.fullmatch, labels)):
        raise _misleading(name, "no part of a host name may be empty, or begin or end with a dash")
    if len(labels) > 1 and all(label.isdigit() for label in labels):
        raise _misleading(name, "programs would take it for an IP address")
    if name.lower() == "localhost":
        raise _misleading(name, "this name means this computer")
    if WINDOWS_DEVICE.fullmatch(labels[0]):
        raise _misleading(name, "it names a device in Windows, and no folder can have that name")


def _misleading(name: str, why: str) -> Usage:
    return Usage(f'invalid name "{name}": {why}', hint="machine create dev-1")


def dumps(machine: Machine) -> str:
    return json.dumps({"format": FORMAT, **dataclasses.asdict(machine)}, indent=2) + "\n"


def loads(text: str, source: Path) -> Machine:
    """The machine that `dumps` wrote; raises StoreDamaged, naming source, when it is anything else."""
    hint = f"restore the file from a backup, or remove the machine: machine rm -f {source.parent.name}"
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{source} is damaged: {reason(error)}", hint=hint) from error
    if not isinstance(data, dict) or not isinstance(written := data.pop("format", None), int):
        raise StoreDamaged(f"{source} wasn't written by machine", hint=hint)
    if written > FORMAT:
        raise StoreDamaged(
            f"{source} was written by a newer version of machine (format {written}, this one reads {FORMAT})",
            hint="pipx upgrade machine-vm",
        )
    try:
        machine = _build(Machine, data)
    except (TypeError, ValueError) as error:
        raise StoreDamaged(f"{source} is damaged: {error}", hint=hint) from error
    assert isinstance(machine, Machine)
    return machine


@functools.cache
def _hints(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _build(cls: type, data: dict[str, object]) -> object:
    hints = _hints(cls)
    if unknown := sorted(data.keys() - hints.keys()):
        raise ValueError(f"unknown field {unknown[0]!r}")
    return cls(**{name: _value(name, hints[name], value) for name, value in data.items()})


def _value(name: str, hint: object, value: object) -> object:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(part for part in hint.__args__ if part is not type(None))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(hint, value)
    origin = typing.get_origin(hint) or hint
    if origin is tuple and isinstance(value, list):
        value = tuple(value)
    if origin is dict and isinstance(value, dict):
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    if not isinstance(value, typing.cast(type, origin)) or (origin is int and isinstance(value, bool)):
        raise TypeError(f"{name} is {value!r}")
    return value

"""What `machine init` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machine import resources
from machine.cli import driver_options, project_keys
from machine.images import cache
from machine.instance import Instance
from machine.network import addresses

SCHEMA = "machine.schema.json"
_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA}
# The machines of this project. `machine plan` prints what `machine up` would do; `machine down` shuts them down.
"""
_TEXT = (
    _HEAD
    + """\
# The keys of a machine are the options of `machine create`; `machine schema` describes them all.

# name: {name}                 # default: the name of this folder

# defaults:                    # what all machines have
#   engine-registry-mirror: [http://10.0.2.2:5000]

machines:
  {machine}:
    memory: {memory}
    cpus: {cpus}
    disk: {disk}
    # driver: qemu             # default: the driver that machine create takes here
    # count: 3                 # {machine}-1, {machine}-2 and {machine}-3
    # mount: [.]               # this folder, at the same path; default: your home folder
    # engine-label: [stage=dev]
    # host: [registry.test=192.168.1.10]
    # sysctl: [vm.max_map_count=262144]
"""
)


def text(name: str) -> str:
    """The file for a project of that name, with one machine."""
    sizes = {"memory": resources.DEFAULT_MEMORY, "cpus": resources.DEFAULT_CPUS, "disk": resources.DEFAULT_DISK}
    return _TEXT.format(name=name, machine=name, **sizes)


def described(instance: Instance) -> str:
    """The file that describes a machine which is there."""
    import yaml

    found = {"machines": {instance.name: _options(instance)}}
    return _HEAD + "\n" + yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110)


def _options(instance: Instance) -> dict[str, Any]:
    machine, engine = instance.machine, instance.machine.engine
    lists = {
        "engine-opt": engine.options,
        "engine-label": engine.labels,
        "engine-env": engine.environment,
        "engine-registry-mirror": engine.registry_mirrors,
        "engine-insecure-registry": engine.insecure_registries,
        "tls-san": machine.tls_sans,
        "host": machine.hosts,
        "sysctl": machine.sysctls,
    }
    found: dict[str, Any] = {"driver": machine.driver}
    if instance.driver.kind.is_ours:
        found |= {"memory": _size(machine.memory_mib), "cpus": machine.cpus, "disk": _size(machine.disk_mib)}
        found |= _image(machine.image)
        found["mount"] = list(machine.mounts) or ["none"]
    found |= {"arch": machine.architecture} if machine.architecture else {}
    found |= {"network": machine.network} if machine.network not in {"", addresses.DEFAULT} else {}
    found |= {"network": machine.network} if machine.network else {}
    found |= {"no-tls": True} if not machine.tls else {}
    found |= {"no-host-network-ports": True} if not machine.host_network_ports else {}
    found |= {key: list(items) for key, items in lists.items() if items}
    return found | _own(machine.driver, machine.options)


def _own(driver: str, options: dict[str, Any]) -> dict[str, Any]:
    names = {option.name: project_keys.name_of(option) for option in driver_options.of(driver)}
    known = {names.get(f"{driver}_{name}"): value for name, value in options.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items() if name}


def _image(digest: str) -> dict[str, str]:
    about = cache.find_digest(digest) if digest else None
    return {"image": about.name} if about and about.name != "machineos" else {}


def _size(size_mib: int) -> str | int:
    return f"{size_mib // 1024}G" if size_mib % 1024 == 0 else size_mib


def write(folder: Path, file: Path, content: str, schema: str) -> None:
    file.write_text(content, encoding="utf-8")
    (folder / SCHEMA).write_text(schema, encoding="utf-8")

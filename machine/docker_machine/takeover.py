"""Read docker-machine's store, to take over its machines. The store isn't changed.

A cloud machine becomes a host that SSH reaches: it keeps its certificates and its SSH key, and `machine` doesn't start
or stop it. `machine provision` later gives its Docker certificates of this store's CA, if its system is supported. A
VirtualBox machine can be started and stopped here, as long as VirtualBox has it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import paths, registry, spec, store
from machine.driver import FindsExisting, Machine
from machine.errors import MachineError, StoreDamaged
from machine.guest import existing_host
from machine.paths import MachineFolder
from machine.progress import Progress
from machine.reasons import reason
from machine.run import run
from machine.spec import Address, Engine
from machine.ssh import client_config
from machine.ssh.remote import Shell

# The driver for its virtual machines in VirtualBox, and the one for all other hosts.
EXISTING_VM, HOST = "virtualbox-adopted", "generic"
_UI_TYPES = {"headless", "separate", "gui"}
# Where docker-machine's daemons listen.
PORT = 2376


@dataclass(frozen=True)
class ImportableMachine:
    """A machine of docker-machine: its folder, its old driver, and the new machine.

    note: why the new machine can do less than the old one, else "".
    """

    folder: Path
    driver: str
    machine: Machine
    address: Address
    note: str = ""


def default() -> Path:
    return paths.user_home() / ".docker" / "machine"


def find(path: Path) -> Iterator[tuple[str, ImportableMachine | MachineError]]:
    """(name, machine) or (name, the reason why it can't be taken over) of each. Raises MachineError for no store."""
    if not (path / "machines").is_dir():
        raise MachineError(f"there is no store of docker-machine in {path}", hint="machine import-docker-machine PATH")
    for config in sorted((path / "machines").glob("*/config.json")):
        try:
            yield config.parent.name, _read(config)
        except MachineError as error:
            yield config.parent.name, error


def take(found: ImportableMachine, progress: Progress) -> None:
    """Add the machine to the store; an error leaves nothing. Raises MachineExists, SSHFailed when it doesn't answer."""
    with store.reserve(found.machine.name, lambda _: found.machine, lambda *_: None) as (machine, folder):
        for name, target in _files(found.folder, folder).items():
            source = next((path for path in (found.folder / name, _certs(found) / name) if path.exists()), None)
            if source:
                target.touch(mode=0o600)
                shutil.copyfile(source, target)
        if machine.driver != "none":
            existing_host.pin(folder, found.address, "", progress)
            client_config.write(Shell(folder, found.address, machine.ssh_user))


def _files(old: Path, folder: MachineFolder) -> dict[str, Path]:
    tls = {path.name: path for path in (folder.ca, folder.cert, folder.key, folder.server_cert, folder.server_key)}
    return {**tls, "id_rsa": folder.ssh_key}


def _certs(found: ImportableMachine) -> Path:
    return found.folder.parent.parent / "certs"


def _read(config: Path) -> ImportableMachine:
    try:
        data = json.loads(config.read_text(encoding="utf-8"))
        driver, name = str(data["DriverName"]), str(data["Name"])
        spec.check_name(name)
        return _found(config.parent, name, driver, data["Driver"], data.get("HostOptions") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"{config} can't be read: {reason(error)}") from error


def _found(folder: Path, name: str, driver: str, settings: dict[str, Any], host: dict[str, Any]) -> ImportableMachine:
    if driver == "none":
        url = str(settings["URL"])
        machine = _machine(name, "none", {"url": url}, "root", host)
        return ImportableMachine(folder, driver, machine, Address(""))
    address = str(settings.get("IPAddress") or "")
    if not address:
        raise MachineError(f"docker-machine doesn't know the address of {name}", hint=f"docker-machine start {name}")
    # VirtualBox's SSHPort is one of this host, where it forwards; the machine itself listens on the usual one.
    port = 22 if driver == "virtualbox" else int(settings.get("SSHPort") or 22)
    engine = int(settings.get("EnginePort") or PORT)
    options: dict[str, spec.Option] = {"ip_address": address, "ssh_port": port, "engine_port": engine}
    machine = _machine(name, HOST, options, str(settings.get("SSHUser") or "root"), host)
    found = ImportableMachine(folder, driver, machine, Address(address, engine, port))
    return _with_its_vm(found, str(settings.get("UIType") or "headless")) if driver == "virtualbox" else found


def _with_its_vm(found: ImportableMachine, ui_type: str) -> ImportableMachine:
    """The machine with its virtual machine; without one, a host that we can't start and stop."""
    machine = found.machine
    try:
        driver = registry.load(EXISTING_VM)
        assert isinstance(driver, FindsExisting)
        uuid = driver.identify(found.folder, machine.name, paths.store(), run)
    except MachineError as error:
        return dataclasses.replace(found, note=f"{error.message}: it can't be started or stopped from here")
    options = {**machine.options, "ui_type": ui_type if ui_type in _UI_TYPES else "headless"}
    return dataclasses.replace(
        found, machine=dataclasses.replace(machine, driver=EXISTING_VM, uuid=uuid, options=options)
    )


def _machine(name: str, driver: str, options: dict[str, spec.Option], user: str, host: dict[str, Any]) -> Machine:
    engine = host.get("EngineOptions") or {}
    return Machine(
        name=name,
        driver=driver,
        uuid="",
        mac="",
        image="",
        memory_mib=0,
        cpus=0,
        disk_mib=0,
        ssh_user=user,
        tls_sans=tuple((host.get("AuthOptions") or {}).get("ServerCertSANs") or ()),
        engine=Engine(
            options=_options(engine),
            labels=tuple(label for label in engine.get("Labels") or () if not label.startswith("provider=")),
            environment=tuple(engine.get("Env") or ()),
            registry_mirrors=tuple(engine.get("RegistryMirror") or ()),
            insecure_registries=tuple(engine.get("InsecureRegistry") or ()),
        ),
        options=options,
    )


def _options(engine: dict[str, Any]) -> tuple[str, ...]:
    driver = engine.get("StorageDriver")
    return (*(engine.get("ArbitraryFlags") or ()), *((f"storage-driver={driver}",) if driver else ()))

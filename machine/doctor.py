"""The checks behind `machine doctor`: problems of this host and its machines, and their repairs.

Each check yields findings. A repair is safe: it loses nothing of a machine in the store, and may be repeated.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator

from machine import loopback, orphans, ownership, paths, registry, renewal, shells, storage, store
from machine.docker import api, contexts
from machine.errors import MachineError, NoSuchImage
from machine.findings import Finding, Level
from machine.guest import checks
from machine.images import cache
from machine.instance import Instance, nobody
from machine.paths import Image
from machine.progress import Silent
from machine.run import which
from machine.spec import Machine, State
from machine.ssh import client_config
from machine.tls import certs, trust

# Seconds for a hypervisor or an engine to answer.
TIMEOUT = 10.0
# The same for the list of all that a hypervisor has: VBoxManage sometimes takes 10 s longer than usual.
ORPHANS_TIMEOUT = 30.0


def examine(default_driver: str) -> Iterator[Finding]:
    """All findings, as they are made. default_driver: the driver of `create` without --driver."""
    machines = {name: _loaded(name) for name in _names()}
    used = {machine.driver for machine in machines.values() if machine}
    yield from tools()
    yield from drivers(default_driver, used)
    for check, findings in (
        ("images", cached_images(machines)),
        ("store", storage.the_store({name for name, machine in machines.items() if machine is None})),
        ("space", storage.space()),
        ("loopback", loopback_aliases()),
        ("templates", templates()),
        ("certificates", certificates(machines)),
        ("orphans", left_over()),
        ("client", client()),
        *(
            (name, one_machine(Instance(machine, store.folder_of(name))))
            for name, machine in machines.items()
            if machine
        ),
    ):
        yield from _whole(check, findings)


def _names() -> list[str]:
    try:
        return store.names()
    except OSError:  # `the_store` says why
        return []


def _whole(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Turn a failed check into a finding, so that the other checks still run."""
    try:
        yield from findings
    except OSError as error:
        known = ownership.explained(error)
        yield Finding(check, Level.ERROR, known.message, known.hint)
    except MachineError as error:
        yield Finding(check, Level.ERROR, error.message, error.hint)


def tools() -> Iterator[Finding]:
    missing = {
        "ssh": "OpenSSH isn't installed: paramiko takes its place, without options of ssh, scp and mount",
        "docker": "there is no docker client on this host",
    }
    for tool, text in missing.items():
        if not which(tool):
            yield Finding("tools", Level.WARNING, text, f"install {tool}")
    if all(map(which, missing)):
        yield Finding("tools", Level.OK, "ssh and docker are installed")


def drivers(default: str, used: set[str]) -> Iterator[Finding]:
    """Unused drivers that don't work here are not reported."""
    for name in registry.names():
        needed = name == default or name in used
        try:
            driver = nobody(name).driver
            if not driver.kind.is_ours:
                continue  # it needs nothing on this host
            notes = driver.check()
        except MachineError as error:
            if needed:
                yield Finding("drivers", Level.ERROR, f"{name}: {error.message}", error.hint)
            continue
        if notes and needed:
            yield from (Finding("drivers", Level.WARNING, f"{name}: {note}") for note in notes)
        else:
            yield Finding("drivers", Level.OK, f"{name} can be used")


def loopback_aliases(
    platform: str = sys.platform, own: Callable[[], Collection[str]] = loopback.own_addresses
) -> Iterator[Finding]:
    """On macOS, whether machines have addresses of their own: a choice, nothing is wrong without them."""
    if platform != "darwin":
        return
    if there := [address for address in own() if address.startswith("127.77.")]:
        yield Finding("loopback", Level.OK, f"new machines get addresses of their own: {len(there)} aliases on lo0")
    else:
        text = "machines share 127.0.0.1, each with its own ports; aliases would give each an address (docs/how-to.md)"
        yield Finding("loopback", Level.OK, text, loopback.alias_command(paths.store()))


def cached_images(machines: dict[str, Machine | None]) -> Iterator[Finding]:
    used = {machine.image: name for name, machine in machines.items() if machine and machine.image}
    with contextlib.suppress(NoSuchImage):
        used.setdefault(cache.current("machineos").digest, "")
    if not used:
        yield Finding("images", Level.WARNING, "there is no machineos in the cache", cache.remedy())
    for digest, name in used.items():
        try:
            cache.verify(Image(digest), whole=True)
            yield Finding("images", Level.OK, f"the image {digest[:12]} is intact")
        except MachineError as error:
            text = f"{error.message}{f', and the machine {name} boots it' if name else ''}"
            yield Finding("images", Level.ERROR, text, error.hint)


def templates() -> Iterator[Finding]:
    """Templates that have failed: without a template new machines boot, which takes long."""
    failed = False
    for name in registry.names():
        with contextlib.suppress(MachineError):
            for one in registry.load(name).templates(paths.store()):
                if one.failed:
                    failed = True
                    text = f"machines boot cold without the template {one.key} ({one.what}): {one.failed}"
                    yield Finding("templates", Level.WARNING, text, f"machine template rm {one.key}")
    if not failed:
        yield Finding("templates", Level.OK, "no template has failed")


def certificates(machines: dict[str, Machine | None]) -> Iterator[Finding]:
    checked = [
        Instance(machine, store.folder_of(name)) for name, machine in machines.items() if machine and machine.tls
    ]
    found = False
    for instance in checked:
        for finding in _certificate(instance):
            found = True
            yield finding
    if checked and not found:
        yield Finding("certificates", Level.OK, "all certificates are valid")


def _certificate(instance: Instance) -> Iterator[Finding]:
    from datetime import timedelta

    from machine.tls import x509

    machine, folder = instance.machine, instance.folder
    if expiry := certs.expires_soon(folder):
        hint, repair = expiry.command, _renewing(machine.name) if expiry.only_machine else None
        if not _is_certified(machine):
            hint, repair = "renew it where it was made, and take the machine over again", None
        yield Finding("certificates", Level.WARNING, f"{machine.name}: {expiry}", hint, repair)
        return
    if not _is_certified(machine):
        return
    shared = paths.store() / "certs"
    names = [machine.name, "localhost", *machine.tls_sans]
    with contextlib.suppress(MachineError):
        names.append(instance.address.host)
    try:
        ca = x509.load(shared / "ca.pem", shared / "ca-key.pem")
    except MachineError as error:
        yield Finding("certificates", Level.ERROR, error.message, "machine regenerate-certs --ca")
        return
    if not x509.fits(folder.server_cert, folder.server_key, ca, within=timedelta(), names=list(dict.fromkeys(names))):
        text = f"{machine.name}: its certificate is damaged, of another CA, or for other names"
        command = f"machine regenerate-certs {machine.name}"
        yield Finding("certificates", Level.ERROR, text, command, _renewing(machine.name))


def _is_certified(machine: Machine) -> bool:
    """Whether we made its certificate; True for a machine whose driver can't be loaded."""
    try:
        return renewal.has_our_certificate(machine)
    except MachineError:
        return True


def left_over() -> Iterator[Finding]:
    """What is left of machines that aren't in the store any more, for example when a folder was removed by hand."""
    found = [*orphans.processes(), *orphans.in_hypervisors(ORPHANS_TIMEOUT)]
    yield from found or [Finding(orphans.CHECK, Level.OK, "nothing is left of removed machines")]


def client() -> Iterator[Finding]:
    """The docker clients' settings in this shell."""
    yield from trust.findings(paths.store() / "certs" / "ca.pem")
    host = os.environ.get("DOCKER_HOST", "")
    name = os.environ.get("DOCKER_MACHINE_NAME", "")
    if not name:
        return
    known = Instance(machine, store.folder_of(name)).url if (machine := _loaded(name)) else None
    if known == host:
        yield Finding("client", Level.OK, f"this shell's docker client is set to the machine {name}")
    else:
        text = f"this shell's docker client is set to the machine {name} on {host}, which doesn't exist"
        yield Finding("client", Level.WARNING, text, shells.evaluated("machine", "env", "-u"))


def one_machine(instance: Instance) -> Iterator[Finding]:
    name = instance.name
    try:
        driver = instance.driver
        state, address = driver.state(), instance.address
    except MachineError as error:
        yield Finding(name, Level.ERROR, error.message, error.hint)
        return
    with contextlib.suppress(MachineError):
        yield from _stale(instance)
    if state is State.ERROR:
        yield Finding(name, Level.ERROR, driver.diagnosis(), f"machine kill {name} && machine start {name}")
    if state is not State.RUNNING:
        yield Finding(name, Level.OK, f"it is {state.lower()}")
        return
    yield from (Finding(name, Level.WARNING, warning) for warning in driver.warnings())
    try:
        version = instance.docker(TIMEOUT).version()
        yield Finding(name, Level.OK, f"Docker {version} answers on {address.url}")
    except MachineError as error:
        # doctor has shown the state, which the error's own hint would show.
        logs = f"machine logs {name}" if driver.kind.is_ours else ""
        hint = logs if isinstance(error, api.Unreachable) else error.hint
        yield Finding(name, Level.ERROR, error.message, hint)
    else:
        yield from _unshared(instance)
    if driver.kind.has_ssh:
        yield from checks.look(name, instance.shell())


def _unshared(instance: Instance) -> Iterator[Finding]:
    """Containers that see an empty folder in place of one of this host."""
    from machine.folders import binds

    driver = instance.driver
    if not driver.kind.is_ours:
        return
    with contextlib.suppress(MachineError):
        containers = instance.docker(TIMEOUT).containers()
        targets = [folder.target for folder in driver.mounts() or driver.folders()]
        for container, path in binds.unshared(containers, targets):
            text = f"the container {container} has bound {path}, which the machine doesn't share: it isn't this host's"
            hint = f"machine mount add {instance.name} {path}" if driver.shares else ""
            yield Finding(instance.name, Level.WARNING, text, hint)


def _stale(instance: Instance) -> Iterator[Finding]:
    name, client = instance.name, instance.docker()
    if contexts.is_stale(client):
        text = f"its docker context {contexts.name(name)} has old certificates"
        hint = f"machine docker-context {name}"
        yield Finding(name, Level.WARNING, text, hint, lambda: contexts.refresh(client))
    if client_config.installed() and not instance.folder.ssh_config.exists():
        text, hint = "ssh doesn't know it yet", "machine ssh-config --install"
        yield Finding(name, Level.WARNING, text, hint, lambda: client_config.write(instance.shell()))


def _renewing(name: str) -> Callable[[], None]:
    return lambda: renewal.renew(name, Silent())


def _loaded(name: str) -> Machine | None:
    try:
        return store.load(name)
    except MachineError:
        return None

"""machine status, ip, url, inspect and version: what is known of one machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from machine import __version__, paths
from machine.cli import prompt, targets
from machine.cli.options import answer_option, machines_argument, name_argument
from machine.errors import MachineError, NotRunning, Usage, WaitTimeout
from machine.guest import console
from machine.instance import Instance, load
from machine.spec import Machine, State

if TYPE_CHECKING:
    from machine.folders.mount_spec import Folder

_MISSING = "missing on this computer"


@click.command()
@answer_option
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "state", "mounts", "warnings": [text]}.')
@name_argument
def status(name: str | None, as_json: bool, timeout: float) -> None:
    """Print a machine's state: Running, Paused, Saved, Stopped, Stopping, Starting or Error.

    The folders of this host that it shares, and what is amiss with a running machine, go to stderr.
    """
    chosen = targets.one(name)
    instance = load(chosen)
    state = _state(instance, timeout)
    warnings = _warnings(instance) if state is State.RUNNING else []
    mounts = _mounts(instance, state)
    if as_json:
        # In words they are among the folders.
        missing = [
            f"the shared folder {mount['source']} doesn't exist" for mount in mounts if mount["state"] == _MISSING
        ]
        found = {"name": chosen, "state": state, "mounts": mounts, "warnings": [*warnings, *missing]}
        print(json.dumps(found, indent=4, ensure_ascii=False))
        return
    print(state, flush=True)
    for mount in mounts:
        print(f"shared folder {console.clean(_in_words(mount))}", file=sys.stderr)
    for warning in warnings:
        print(f"warning: {console.clean(warning)}", file=sys.stderr)


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"NAME": "address"}.')
@machines_argument
def ip(machines: tuple[str, ...], as_json: bool) -> None:
    """Print the address of each machine, in the order given. It is the same for a stopped one."""
    prompt.ip(machines, as_json=as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "url"}.')
@name_argument
def url(name: str | None, as_json: bool) -> None:
    """Print the URL of a machine's Docker daemon. It is the same for a stopped one."""
    prompt.url(name, as_json=as_json)


@click.command()
@answer_option
@click.option(
    "-f", "--format", "form", metavar="TEMPLATE", help="Go template: '{{.Driver.IPAddress}}', '{{json .Driver}}'."
)
@click.option("--json", "as_json", is_flag=True, help="As without options: docker-machine's keys, State, and Machine.")
@name_argument
def inspect(name: str | None, form: str | None, as_json: bool, timeout: float) -> None:
    """Print all that is known of a machine, as JSON.

    \b
    docker-machine's keys:
      Name DriverName ConfigVersion
      Driver: IPAddress MachineName SSHUser SSHPort SSHKeyPath StorePath
              CPU Memory DiskSize EnginePort
      HostOptions.EngineOptions: ArbitraryFlags Env InsecureRegistry Labels
              RegistryMirror StorageDriver TlsVerify
      HostOptions.AuthOptions: StorePath CertDir CaCertPath ClientCertPath ...
    New keys:
      State (as `machine status` prints it)
      Architecture (of its processors)
      Machine (machine.json: what was asked for)
    """
    from machine.docker_machine import inspect_json
    from machine.goformat import Format

    if form is not None and as_json:
        raise Usage("choose one of --format and --json", hint="machine inspect --json")
    chosen = targets.one(name)
    go_format = Format(form) if form is not None else None
    instance = load(chosen)
    # The driver and the hypervisor are asked only when their answers are printed.
    state = _state_or_error(instance, timeout) if go_format is None or go_format.needs("State") else ""
    architecture = instance.architecture if go_format is None or go_format.needs("Architecture") else ""
    data = inspect_json.describe(instance, state, architecture)
    print(go_format.render(data) if go_format else json.dumps(data, indent=4, ensure_ascii=False))


@click.command()
@answer_option
@click.option("--json", "as_json", is_flag=True, help='Print {"machine"}, with NAME also {"name", "docker"}.')
@name_argument
def version(name: str | None, as_json: bool, timeout: float) -> None:
    """Print the version of machine, or, with NAME, of that machine's Docker."""
    found = {"machine": __version__}
    if name is not None:
        found |= {"name": targets.one(name), "docker": _docker_version(load(name), timeout)}
    if as_json:
        print(json.dumps(found, indent=4))
    else:
        print(found["docker"] if name is not None else f"machine version {__version__}")


def _warnings(instance: Instance) -> list[str]:
    return [*instance.driver.warnings(), *_hidden(instance.machine), *console.warnings(instance.folder.console)]


def _hidden(machine: Machine) -> list[str]:
    """Why the machine can't reach any of its shared folders."""
    if not machine.mounts:
        return []
    from machine.folders import mount_spec

    try:
        mount_spec.hidden(paths.store())
    except MachineError as error:
        return [f"the guest's files wait, because what is hidden can't be told: {error.message}"]
    return []


def _mounts(instance: Instance, state: State) -> list[dict[str, object]]:
    """The shared folders, each with its state in words, and why it isn't mounted. No guest is asked."""
    driver = instance.driver
    lacks = driver.unmounted() if state is State.RUNNING else {}

    def of(folder: Folder) -> tuple[str, str]:
        if not folder.source.is_dir():
            return _MISSING, ""
        if state is not State.RUNNING:
            return "not mounted", f"the machine is {'suspended' if state is State.SAVED else state.lower()}"
        return ("not mounted", lacks[folder.target]) if folder.target in lacks else ("mounted", "")

    found = []
    for folder in driver.folders():
        status, why = of(folder)
        found.append({**_described(folder), "state": status, "why": why})
    return found


def _in_words(mount: dict[str, object]) -> str:
    place = "" if mount["source"] == mount["target"] else f" at {mount['target']}"
    why = f", because {mount['why']}" if mount["state"] == "not mounted" else ""
    return f"{mount['source']}{place}{' (read-only)' if mount['read_only'] else ''}: {mount['state']}{why}"


def mounts_of(machine: Machine) -> list[dict[str, object]]:
    """The folders of the host that the machine shares: path on the host, path in the machine."""
    if not machine.mounts:
        return []
    from machine.folders import mount_spec

    return [_described(mount_spec.parse(text)) for text in machine.mounts]


def _described(folder: Folder) -> dict[str, object]:
    return {"source": str(folder.source), "target": folder.target, "read_only": folder.read_only}


def _docker_version(instance: Instance, timeout: float) -> str:
    if _state(instance, timeout) is not State.RUNNING:
        raise NotRunning(instance.name)
    return instance.docker(timeout).version()


def _state(instance: Instance, timeout: float) -> State:
    state = instance.state(timeout=timeout)
    if state is None:
        what = f'the state of the machine "{instance.name}"'
        raise WaitTimeout(what, timeout, hint="allow more time: --timeout")
    return state


def _state_or_error(instance: Instance, timeout: float) -> str:
    try:
        return _state(instance, timeout)
    except WaitTimeout:
        return "Timeout"
    except MachineError:
        return State.ERROR

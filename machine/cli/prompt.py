"""What env, ip, url and active print: shells' profiles and prompts call them, so a third of their time would be click.

A command line of a verb and names alone is answered here. All others, with options or mistakes, are left to click,
whose commands call the same functions. env reads machine.json and nothing else: a machine's address never changes, and
what is printed for a stopped machine is right once it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from machine import shells, spec, store
from machine.cli import shell_encoding, targets
from machine.cli.verbs import PROMPTS
from machine.errors import MachineError, WaitTimeout
from machine.instance import Instance, load
from machine.spec import State

VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")
# docker-compose on Windows then takes C:\x for /c/x in a volume.
CONVERT_PATHS = "COMPOSE_CONVERT_WINDOWS_PATHS"
# Seconds for a hypervisor to answer.
TIMEOUT = 10.0


def answered(words: Sequence[str]) -> bool:
    """Do what the words after `machine` ask, if they are one of the verbs and names only. Raises MachineError."""
    verb, *names = words
    if len(names) > PROMPTS[verb] or not all(map(spec.NAME.fullmatch, names)):
        return False
    name = names[0] if names else None
    match verb:
        case "active":
            active(TIMEOUT)
        case "env":
            env(name, typed=["machine", *words])
        case "ip":
            ip(names)
        case _:
            url(name)
    return True


def env(
    name: str | None,
    *,
    typed: Sequence[str],
    shell: str | None = None,
    unset: bool = False,
    no_proxy: bool = False,
    as_json: bool = False,
) -> None:
    """typed: this command's own words, for the comment that says how to run what is printed. Raises MachineError."""
    changes = _undone(no_proxy) if unset else _set_up(targets.one(name), no_proxy)
    if as_json:
        print(json.dumps(changes, indent=4))
        return
    chosen = shells.find(shell or shells.detect(os.environ))
    # What is unset comes first: in an unquoted `eval $(…)` the lines run together, and an export would swallow it.
    lines = [chosen.unset(key) for key, value in changes.items() if value is None]
    lines += [chosen.set(key, value) for key, value in changes.items() if value is not None]
    shell_encoding.say("\n".join([*lines, *chosen.hint(typed)]), chosen.character)


def ip(names: Sequence[str], *, as_json: bool = False) -> None:
    """The address of each machine, in the order given. Raises MachineError."""
    found = {name: load(name).address.host for name in targets.several(names)}
    if as_json:
        print(json.dumps(found, indent=4))
        return
    for name in names or found:
        print(found[name])


def url(name: str | None, *, as_json: bool = False) -> None:
    """Raises MachineError."""
    chosen = targets.one(name)
    address = load(chosen).address
    print(json.dumps({"name": chosen, "url": address.url}, indent=4) if as_json else address.url)


def active(timeout: float, *, as_json: bool = False) -> None:
    """The machine of $DOCKER_HOST. timeout in seconds, for its hypervisor. Raises MachineError when none runs."""
    name, url = _active(os.environ.get("DOCKER_HOST", ""), timeout)
    print(json.dumps({"name": name, "url": url}, indent=4) if as_json else name)


def _active(url: str, timeout: float) -> tuple[str, str]:
    for instance in _readable() if url else []:
        if instance.url != url:
            continue
        name = instance.name
        state = instance.state(timeout=timeout)
        if state is None:
            raise WaitTimeout(f'the state of the machine "{name}"', timeout, hint=f"machine status {name}")
        if state is State.RUNNING:
            return name, url
        raise MachineError(
            f'No active host found: DOCKER_HOST is set to the machine "{name}", which is {state.lower()}',
            hint=f"machine start {name}",
        )
    raise MachineError("No active host found", hint="machine ls")


def _readable() -> Iterator[Instance]:
    for name in store.names():
        with contextlib.suppress(MachineError):
            yield load(name)


def _set_up(name: str, no_proxy: bool) -> dict[str, str | None]:
    instance = load(name)
    changes = variables(instance)
    if sys.platform == "win32":
        changes[CONVERT_PATHS] = "true"
    if no_proxy:
        for key in _proxy_variables(os.environ) or ["NO_PROXY"]:
            changes[key] = _with(os.environ.get(key, ""), instance.address.host)
    return changes


def variables(instance: Instance) -> dict[str, str | None]:
    tls = instance.machine.tls
    return {
        "DOCKER_TLS_VERIFY": "1" if tls else None,
        "DOCKER_HOST": instance.address.url,
        "DOCKER_CERT_PATH": str(instance.folder.path) if tls else None,
        "DOCKER_MACHINE_NAME": instance.name,
    }


def _undone(no_proxy: bool) -> dict[str, str | None]:
    changes: dict[str, str | None] = dict.fromkeys(VARIABLES)
    if sys.platform == "win32":
        changes[CONVERT_PATHS] = None
    host = _host(os.environ.get("DOCKER_HOST", ""))
    for key in _proxy_variables(os.environ) if no_proxy and host else []:
        value = os.environ[key]
        if host in _items(value):
            changes[key] = ",".join(item for item in _items(value) if item != host) or None
    return changes


def _proxy_variables(environ: Mapping[str, str]) -> list[str]:
    """Both spellings where both are set: curl looks at the lower case one first, docker at the other."""
    spellings = ("NO_PROXY",) if sys.platform == "win32" else ("no_proxy", "NO_PROXY")
    return [key for key in spellings if environ.get(key)]


def _with(value: str, host: str) -> str:
    return value if host in _items(value) else ",".join(filter(None, [value, host]))


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",")]


def _host(url: str) -> str:
    """The host of tcp://HOST:PORT or tcp://[HOST]:PORT."""
    return url.rpartition("://")[2].rpartition(":")[0].strip("[]")

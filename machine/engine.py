"""What the Docker daemon is told: daemon.json, and its environment."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from machine.errors import Usage
from machine.reasons import reason
from machine.render import render
from machine.spec import Machine

Value = str | int | bool | list[object] | dict[str, object]

# A flag of dockerd is in the singular where the key of daemon.json is in the plural (Docker's manual, dockerd).
_KEYS = {
    "D": "debug",
    "G": "group",
    "H": "hosts",
    "add-runtime": "runtimes",
    "b": "bridge",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "g": "data-root",
    "graph": "data-root",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "l": "log-level",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "p": "pidfile",
    "registry-mirror": "registry-mirrors",
    "s": "storage-driver",
    "storage-opt": "storage-opts",
}
_LISTS = {
    "authorization-plugins",
    "cdi-spec-dirs",
    "default-address-pools",
    "dns",
    "dns-opts",
    "dns-search",
    "exec-opts",
    "insecure-registries",
    "labels",
    "node-generic-resources",
    "registry-mirrors",
    "storage-opts",
}
_MAPS = {"default-network-opts", "default-ulimits", "features", "log-opts", "runtimes"}
# Strings to dockerd even when they look like a number.
_STRINGS = {"default-shm-size", "group", "userns-remap"}
_PROXIES = {"http-proxy", "https-proxy", "no-proxy"}
_OWNED = {
    "config-file": "the machine reads its own",
    "containerd": "the machine starts containerd itself",
    "data-root": "it lies on the machine's data disk",
    "exec-root": "the machine's processes know it",
    "hosts": "the machine's address and port are fixed",
    "pidfile": "the machine restarts the daemon by it",
}
_TLS = "the machine has certificates of its own; plain HTTP is: machine create --no-tls"

_OPTION = re.compile(r"-{0,2}([A-Za-z][A-Za-z0-9-]*)(?:(?:=|\s+)(.*))?", re.DOTALL)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_LOCAL = re.compile(
    r"^((?:[a-z0-9]+://)?(?:[^@/]*@)?)(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?=[:/]|$)", re.IGNORECASE
)
# The host as a guest sees it under user-mode networking (QEMU's and VirtualBox's NAT).
HOST_IN_GUEST = "10.0.2.2"


def daemon_json(machine: Machine) -> str:
    """daemon.json for the machine: what the user asked, and the label provider=DRIVER; else Docker's defaults.

    An option is a flag of dockerd, with or without dashes, then `=` or a blank, then its value; a bare one is true.
    A value that begins with { or [ is JSON. Raises Usage for what is no option, or the machine's own.
    """
    engine = machine.engine
    config: dict[str, Value] = {}
    for option in engine.options:
        _set(config, option)
    for key, added in (
        ("labels", [f"provider={machine.driver}", *engine.labels]),
        ("registry-mirrors", [*engine.registry_mirrors]),
        ("insecure-registries", [*engine.insecure_registries]),
    ):
        _extend(config, key, added)
    _check_labels(config["labels"])
    return render("daemon.json.j2", config=config)


def docker_env(machine: Machine, proxies: Mapping[str, str]) -> str:
    """The daemon's environment: proxies, then the user's --engine-env, which win. One literal KEY=VALUE a line.

    Raises Usage for what isn't KEY=VALUE on one line.
    """
    variables = dict(proxies)
    for item in machine.engine.environment:
        match = _VARIABLE.fullmatch(item)
        if not match:
            raise Usage(f'"{item}" is no variable', hint="write KEY=VALUE: --engine-env HTTP_PROXY=http://proxy:3128")
        variables[match[1]] = match[2]
    return environment(variables)


def environment(variables: Mapping[str, str]) -> str:
    """Lines KEY=VALUE, to be read as they stand, never by a shell. Raises Usage for a value of several lines."""
    lines = []
    for key, value in variables.items():
        if not _VARIABLE.fullmatch(f"{key}=") or not value.isprintable():
            raise Usage(f"the value of {key!r} has characters that can't stand in an environment", hint="use one line")
        lines.append(f"{key}={value}\n")
    return "".join(lines)


def proxies(environ: Mapping[str, str], *, host: str = HOST_IN_GUEST) -> dict[str, str]:
    """The proxy settings of environ as a guest needs them, each in lower and upper case.

    A proxy on the host's loopback is reached at host from the guest. Lower case wins where the two differ, as in curl.
    """
    found = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = environ.get(name) or environ.get(name.upper())
        if value:
            # no_proxy isn't rewritten: localhost in it is meant where it is used.
            found[name] = value if name == "no_proxy" else _LOCAL.sub(rf"\g<1>{host}", value)
            found[name.upper()] = found[name]
    return found


def _set(config: dict[str, Value], option: str) -> None:
    match = _OPTION.fullmatch(option.strip())
    if not match:
        raise Usage(f'"{option}" is no engine option', hint="write KEY=VALUE: --engine-opt log-driver=local")
    key = _KEYS.get(match[1], match[1])
    _refuse_owned(key, option)
    text = match[2]
    if key in _PROXIES:
        _extend_map(config, "proxies", f"{key}={text or ''}", option)
    elif text is not None and text.startswith(("{", "[")) and not text.startswith("{{"):  # {{ is a Go template
        config[key] = _json(key, text, option)
    elif key in _LISTS:
        _extend(config, key, [_needed(text, option)])
    elif key in _MAPS:
        _extend_map(config, key, _needed(text, option), option)
    else:
        # Of a flag given twice, dockerd too takes the last.
        config[key] = _scalar(key, text)


def _refuse_owned(key: str, option: str) -> None:
    reason = _TLS if key.startswith("tls") else _OWNED.get(key)
    if reason:
        raise Usage(f'the engine option "{option}" can\'t be set: {reason}', hint="leave it out")


def _scalar(key: str, text: str | None) -> str | int | bool:
    if text is None or text == "true":
        return True
    if text == "false":
        return False
    return int(text) if key not in _STRINGS and _INTEGER.fullmatch(text) else text


def _needed(text: str | None, option: str) -> str:
    if not text:
        raise Usage(f'the engine option "{option}" needs a value', hint=f"--engine-opt {option}=VALUE")
    return text


def _json(key: str, text: str, option: str) -> Value:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Usage(
            f'the engine option "{option}" isn\'t JSON: {reason(error)}', hint="see that the shell keeps its quotes"
        ) from error
    assert isinstance(value, dict | list)
    if key in (_LISTS if isinstance(value, dict) else _MAPS):
        raise Usage(f'the engine option "{option}" is of the wrong kind', hint="a list is [...], a map {...}")
    return value


def _extend(config: dict[str, Value], key: str, items: Iterable[str]) -> None:
    present = config.get(key, [])
    if not isinstance(present, list):
        raise Usage(f'the engine option "{key}" must be a list', hint=f"--engine-opt '{key}=[\"VALUE\"]'")
    if merged := [*present, *(item for item in items if item not in present)]:
        config[key] = merged


def _extend_map(config: dict[str, Value], key: str, item: str, option: str) -> None:
    name, equals, value = item.partition("=")
    present = config.setdefault(key, {})
    if not name or not equals or not isinstance(present, dict):
        raise Usage(f'the engine option "{option}" needs NAME=VALUE', hint="--engine-opt log-opt=max-size=10m")
    present[name] = _scalar(name, value) if key == "features" else value


def _check_labels(labels: Value) -> None:
    assert isinstance(labels, list)
    for label in labels:
        if not isinstance(label, str) or not re.fullmatch(r"[^=\s][^=]*=.*", label) or not label.isprintable():
            raise Usage(f'"{label}" is no label', hint="write KEY=VALUE: --engine-label stage=test")
    # The daemon refuses to start with two values for one label.
    if sum(str(label).startswith("provider=") for label in labels) > 1:
        raise Usage('the label "provider" is the machine\'s own', hint="choose another name for the label")

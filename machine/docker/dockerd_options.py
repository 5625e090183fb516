"""Translate a flag of dockerd, as typed, into its key in daemon.json.

Most have the same name and form in both. The others are listed here, from Docker's manual (dockerd, "daemon
configuration file") and from tests with dockerd itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from machine.errors import Usage

Value = str | int | bool | list[object] | dict[str, object]

# A flag of dockerd is in the singular where the key of daemon.json is in the plural.
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
    "allow-nondistributable-artifacts",
    "authorization-plugins",
    "cdi-spec-dirs",
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
_MAPS = {"features", "log-opts"}
# In daemon.json their values have another form: a map, or a list of maps.
_STRUCTURED = {"default-address-pools", "default-network-opts", "default-ulimits", "runtimes"}
# A flag takes Go's booleans (strconv.ParseBool); daemon.json takes only true and false.
_BOOLEANS = {
    "debug",
    "experimental",
    "features",
    "icc",
    "init",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "live-restore",
    "no-new-privileges",
    "raw-logs",
    "selinux-enabled",
    "userland-proxy",
}
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}
_LISTS_IN_JSON = _LISTS | {"default-address-pools"}
_MAPS_IN_JSON = _MAPS | _STRUCTURED - {"default-address-pools"}
# Strings to dockerd even when they look like a number.
_STRINGS = {"bridge", "cgroup-parent", "containerd-namespace", "default-shm-size", "group", "userns-remap"}
_PROXIES = {"http-proxy", "https-proxy", "no-proxy"}
_OWNED = {
    "config-file": "the machine has its own configuration file",
    "containerd": "the machine starts containerd itself",
    "cri-containerd": "the machine starts containerd itself",
    "data-root": "it lies on the machine's data disk",
    "exec-root": "programs of the machine use its path",
    "help": "it isn't a setting",
    "hosts": "the machine's address and port are fixed",
    "pidfile": "the machine needs it to restart the daemon",
    "rootless": "the machine's daemon runs as root",
    "validate": "it isn't a setting",
    "version": "it isn't a setting",
}
_EXAMPLES = {
    "default-address-pools": "default-address-pool=base=10.10.0.0/16,size=24",
    "default-network-opts": "default-network-opt=bridge=com.docker.network.driver.mtu=1400",
    "default-ulimits": "default-ulimit=nofile=1024:2048",
    "runtimes": "add-runtime=NAME=/path/to/runtime",
}
_TLS = "the machine has its own certificates; for plain HTTP: machine create --no-tls"

_OPTION = re.compile(r"-{0,2}([A-Za-z][A-Za-z0-9-]*)(?:(?:=|\s+)(.*))?", re.DOTALL)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")


class OwnOption(Usage):
    """Only the machine itself may set this option."""


def put(config: dict[str, Value], option: str) -> None:
    """Put the option into config, which becomes daemon.json. Raises Usage for an unknown or reserved option."""
    match = _OPTION.fullmatch(option.strip())
    if not match:
        raise Usage(f'invalid engine option "{option}"', hint="write KEY=VALUE: --engine-opt log-driver=local")
    key = _KEYS.get(match[1], match[1])
    _refuse_owned(key, option)
    text = match[2]
    if key in _PROXIES:
        _extend_map(config, "proxies", f"{key}={text or ''}", option)
    elif text is not None and text.startswith(("{", "[")) and not text.startswith("{{"):  # {{ is a Go template
        config[key] = _json(key, text, option)
    elif key in _STRUCTURED:
        _put_structured(config, key, _needed(text, option), option)
    elif key in _LISTS:
        extend(config, key, [_needed(text, option)])
    elif key in _MAPS:
        _extend_map(config, key, _needed(text, option), option)
    else:
        # dockerd too takes the last of repeated flags.
        config[key] = _scalar(key, text)


def identity(option: str) -> tuple[str, ...]:
    """The key that an option sets: of two options with the same identity only one can count. Lists take several."""
    key, text = _split(option)
    if key in _LISTS or key == "default-address-pools":
        return key, text
    if key in _MAPS | _STRUCTURED and not text.startswith(("{", "[")):
        parts = text.split("=")
        return key, *(parts[:2] if key == "default-network-opts" else parts[:1])
    return (key,)


def is_meant(removed: str, option: str) -> bool:
    """Whether removed (`KEY`, `KEY=VALUE` or, for a map, `KEY=NAME`) means this option."""
    key, text = _split(removed)
    other, value = _split(option)
    return key == other and (not text or value == text or value.startswith(f"{text}="))


def _split(option: str) -> tuple[str, str]:
    match = _OPTION.fullmatch(option.strip())
    if not match:
        raise Usage(f'invalid engine option "{option}"', hint="write KEY=VALUE: --engine-opt log-driver=local")
    return _KEYS.get(match[1], match[1]), match[2] or ""


def _refuse_owned(key: str, option: str) -> None:
    reason = _TLS if key.startswith("tls") else _OWNED.get(key)
    if reason:
        raise OwnOption(f'the engine option "{option}" can\'t be set: {reason}', hint="leave it out")


def _scalar(key: str, text: str | None) -> str | int | bool:
    if text is None or text == "true" or (key in _BOOLEANS and text in _TRUE):
        return True
    if text == "false" or (key in _BOOLEANS and text in _FALSE):
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
            f'the engine option "{option}" isn\'t JSON: {error}',
            hint="quote the option, so that the shell keeps its quotes",
        ) from error
    assert isinstance(value, dict | list)
    if (key in _LISTS_IN_JSON) if isinstance(value, dict) else (key in _MAPS_IN_JSON):
        raise Usage(f'the engine option "{option}" has a value of the wrong type', hint="a list is [...], a map {...}")
    return value


def extend(config: dict[str, Value], key: str, items: Iterable[str]) -> None:
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
    present[name] = _scalar(key, value) if key == "features" else value


def _put_structured(config: dict[str, Value], key: str, text: str, option: str) -> None:
    if key == "default-address-pools":
        pools = config.setdefault(key, [])
        assert isinstance(pools, list)
        pools.append(_pool(text, option))
        return
    name, equals, value = text.partition("=")
    present = config.setdefault(key, {})
    if not name or not equals or not value or not isinstance(present, dict):
        raise Usage(f'the engine option "{option}" needs NAME=VALUE', hint=f"--engine-opt {_EXAMPLES[key]}")
    if key == "runtimes":
        present[name] = {"path": value}
    elif key == "default-ulimits":
        present[name] = _ulimit(name, value, option)
    else:
        inner, _, setting = value.partition("=")
        driver = present.setdefault(name, {})
        assert isinstance(driver, dict)
        driver[inner] = setting


def _pool(text: str, option: str) -> dict[str, object]:
    """base=10.10.0.0/16,size=24"""
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    if set(pairs) != {"base", "size"} or not pairs["size"].isdigit():
        raise Usage(
            f'the engine option "{option}" needs base=NETWORK,size=BITS',
            hint=f"--engine-opt {_EXAMPLES['default-address-pools']}",
        )
    return {"base": pairs["base"], "size": int(pairs["size"])}


def _ulimit(name: str, text: str, option: str) -> dict[str, object]:
    """nofile=1024:2048, the soft limit and the hard one, or one number for both (-1: none)."""
    soft, _, hard = text.partition(":")
    if not _INTEGER.fullmatch(soft) or not _INTEGER.fullmatch(hard or soft):
        raise Usage(
            f'the engine option "{option}" needs NAME=SOFT:HARD', hint=f"--engine-opt {_EXAMPLES['default-ulimits']}"
        )
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}

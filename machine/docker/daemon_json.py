"""The Docker daemon's settings: daemon.json, and its environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from machine.docker import dockerd_options
from machine.errors import Usage
from machine.spec import Machine

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_LOCAL = re.compile(
    r"^((?:[a-z0-9]+://)?(?:[^@/]*@)?)(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?=[:/]|$)", re.IGNORECASE
)
# The host as a guest sees it under user-mode networking (QEMU's and VirtualBox's NAT).
HOST_IN_GUEST = "10.0.2.2"
# The drivers whose machines always have such a network. A machine of libvirt may have another one.
_USER_MODE = {"qemu", "virtualbox"}


def content(machine: Machine) -> str:
    """daemon.json for the machine: the user's options, the label provider=DRIVER, and what `host-gateway` means.

    All else has Docker's defaults.

    An option is a flag of dockerd, with or without dashes, then `=` or a blank, then its value; without a value it is
    true. A value that begins with { or [ is JSON. Raises Usage for an unknown option, or a reserved one.
    """
    engine = machine.engine
    config: dict[str, dockerd_options.Value] = {}
    if machine.driver in _USER_MODE:
        # Without it, `--add-host NAME:host-gateway` would give the guest's own address. An option of the user's wins.
        config["host-gateway-ip"] = HOST_IN_GUEST
    for option in engine.options:
        dockerd_options.put(config, option)
    for key, added in (
        ("labels", [f"provider={machine.driver}", *engine.labels]),
        ("registry-mirrors", [*engine.registry_mirrors]),
        ("insecure-registries", [*engine.insecure_registries]),
    ):
        dockerd_options.extend(config, key, added)
    _check_labels(config["labels"])
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def docker_env(machine: Machine, proxies: Mapping[str, str]) -> str:
    """The daemon's environment: proxies, then the user's --engine-env, which win. One literal KEY=VALUE a line.

    Raises Usage for anything but KEY=VALUE on one line.
    """
    variables = dict(proxies)
    for item in machine.engine.environment:
        match = _VARIABLE.fullmatch(item)
        if not match:
            raise Usage(f'invalid variable "{item}"', hint="write KEY=VALUE: --engine-env HTTP_PROXY=http://proxy:3128")
        variables[match[1]] = match[2]
    return environment(variables)


def environment(variables: Mapping[str, str]) -> str:
    """Lines KEY=VALUE, literal and without a shell's quoting. Raises Usage for a value of several lines."""
    lines = []
    for key, value in variables.items():
        if not _VARIABLE.fullmatch(f"{key}=") or not value.isprintable():
            raise Usage(
                f"the value of {key!r} has characters that an environment variable can't hold", hint="use one line"
            )
        lines.append(f"{key}={value}\n")
    return "".join(lines)


def proxies(environ: Mapping[str, str], *, host: str = HOST_IN_GUEST) -> dict[str, str]:
    """The proxy settings of environ as a guest needs them, each in lower and upper case.

    From the guest, a proxy on the host's loopback is reached at host. Lower case wins if the two differ, as in curl.
    """
    found = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = environ.get(name) or environ.get(name.upper())
        if value:
            # no_proxy isn't rewritten: localhost in it means the place where it is used.
            found[name] = value if name == "no_proxy" else _LOCAL.sub(rf"\g<1>{host}", value)
            found[name.upper()] = found[name]
    return found


def _check_labels(labels: dockerd_options.Value) -> None:
    assert isinstance(labels, list)
    for label in labels:
        if not isinstance(label, str) or not re.fullmatch(r"[^=\s][^=]*=.*", label) or not label.isprintable():
            raise Usage(f'invalid label "{label}"', hint="write KEY=VALUE: --engine-label stage=test")
    # The daemon refuses to start with two values for one label.
    if sum(str(label).startswith("provider=") for label in labels) > 1:
        raise Usage('the label "provider" is set by machine itself', hint="choose another name for the label")

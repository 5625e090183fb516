"""Settings that `set` can change: Docker's, the machine's entries of /etc/hosts, and kernel settings.

An item is stored as the user typed it. A new item replaces an old one with the same name. An item is removed by its
name, or by the whole text.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from machine.docker import daemon_json, dockerd_options
from machine.errors import Usage
from machine.spec import Machine

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")
# sysctl(8): a name has no blanks; net/ipv4/conf/eth0.5/mtu is written with slashes.
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:@+-]+)+")
# Names in /etc/hosts that the machine itself needs.
_OWN_HOSTS = {"localhost", "ip6-localhost", "ip6-loopback"}
_OWN_SYSCTLS = {"kernel.hostname", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}


@dataclass(frozen=True)
class Edit:
    """Items to add to a list of settings, and items to remove from it."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


@dataclass(frozen=True)
class Edits:
    """A change for each list of settings; the first five are fields of spec.Engine."""

    options: Edit = field(default_factory=Edit)
    labels: Edit = field(default_factory=Edit)
    environment: Edit = field(default_factory=Edit)
    registry_mirrors: Edit = field(default_factory=Edit)
    insecure_registries: Edit = field(default_factory=Edit)
    hosts: Edit = field(default_factory=Edit)
    sysctls: Edit = field(default_factory=Edit)

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in dataclasses.fields(self))


def edited(machine: Machine, edits: Edits, say: Callable[[str], None] = lambda text: None) -> Machine:
    """The machine with changed settings; say is called for each item to remove that doesn't exist. Raises Usage."""

    def change(name: str, items: tuple[str, ...]) -> tuple[str, ...]:
        edit: Edit = getattr(edits, name)
        for gone in edit.remove:
            kept = tuple(item for item in items if not _is_meant(name, gone, item))
            if kept == items:
                say(f'there is no "{gone}" to remove')
            items = kept
        for item in edit.add:
            items = _added(name, items, item)
        return items

    engines = ("options", "labels", "environment", "registry_mirrors", "insecure_registries")
    changed = dataclasses.replace(
        machine,
        engine=dataclasses.replace(
            machine.engine, **{name: change(name, getattr(machine.engine, name)) for name in engines}
        ),
        hosts=change("hosts", machine.hosts),
        sysctls=change("sysctls", machine.sysctls),
    )
    check(changed)
    return changed


def check(machine: Machine) -> None:
    """Raise Usage for an invalid setting."""
    daemon_json.content(machine)
    daemon_json.docker_env(machine, {})
    hosts(machine)
    sysctls(machine)


def hosts(machine: Machine) -> str:
    """The machine's own lines of /etc/hosts. Raises Usage for an item that isn't NAME=IP."""
    return "".join(f"{address} {name}\n" for name, address in map(_host, machine.hosts))


def sysctls(machine: Machine) -> str:
    """Lines KEY=VALUE for sysctl. Raises Usage for other items."""
    return "".join(f"{key}={value}\n" for key, value in map(_sysctl, machine.sysctls))


def _host(item: str) -> tuple[str, str]:
    name, equals, address = item.partition("=")
    if not equals or not _HOST.fullmatch(name):
        raise Usage(f'invalid host "{item}"', hint="write NAME=IP: --host registry.test=192.168.1.10")
    if name.lower() in _OWN_HOSTS:
        raise Usage(f'the name "{name}" is reserved for the machine itself', hint="choose another name")
    try:
        if "%" in address:
            raise ValueError
        return name, str(ipaddress.ip_address(address))
    except ValueError as error:
        hint = f"for example: --host {name}=192.168.1.10"
        raise Usage(f'invalid IP address "{address}"', hint=hint) from error


def _sysctl(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not _SYSCTL.fullmatch(key) or not value or not value.isprintable():
        raise Usage(f'invalid kernel setting "{item}"', hint="write KEY=VALUE: --sysctl vm.max_map_count=262144")
    if key.replace("/", ".") in _OWN_SYSCTLS:
        raise Usage(f'the kernel setting "{key}" is set by the machine itself', hint="leave it out")
    return key, value


def _added(name: str, items: tuple[str, ...], item: str) -> tuple[str, ...]:
    """The items with a new one, which replaces an item that sets the same thing."""
    same = [number for number, other in enumerate(items) if _identity(name, other) == _identity(name, item)]
    if not same:
        return (*items, item)
    return tuple(item if number == same[0] else other for number, other in enumerate(items) if number not in same[1:])


def _identity(name: str, item: str) -> object:
    """The key of an item: of two items with the same identity only one can count."""
    if name == "options":
        return dockerd_options.identity(item)
    if name in {"registry_mirrors", "insecure_registries"}:
        return item
    key, _, value = item.partition("=")
    if name == "hosts":
        return key.lower(), ":" in value
    return key.strip().replace("/", ".") if name == "sysctls" else key


def _is_meant(name: str, gone: str, item: str) -> bool:
    """Whether gone, from the command line, means this item: it is the item's text or its name."""
    if gone == item:
        return True
    if name == "options":
        return dockerd_options.is_meant(gone, item)
    if name in {"registry_mirrors", "insecure_registries"} or "=" in gone:
        return False
    key = item.partition("=")[0].strip()
    if name == "sysctls":
        return key.replace("/", ".") == gone.replace("/", ".")
    return key.lower() == gone.lower() if name == "hosts" else key == gone

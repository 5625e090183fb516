"""The ports of a running machine that appear on its address: which they are, the way to each, and what can't be had.

Every driver whose machines are on loopback sets forwards up in its own way (`Forwards`); `forwarding` keeps
them in line with what containers publish.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from machine import files
from machine.errors import DriverFailed
from machine.paths import MachineFolder
from machine.spec import Address

NOTE = "ports.json"
_OLD = re.compile(r"\d+/(tcp|udp)")
_TAKEN = "another program of this host uses it"
PRIVILEGED = 1024
# What shows who has a port.
_SHOW = {
    "linux": "sudo ss -ltnp 'sport = :{}'",
    "darwin": "sudo lsof -nP -iTCP:{} -sTCP:LISTEN",
    "win32": "netstat -ano | findstr :{}",
}
# QEMU: Could not set up host forwarding rule 'tcp:127.77.0.2:22-:22'
# passt: Failed to bind port 22 (Permission denied) for option '-t 127.77.0.2/22:22', exiting
_RULE = re.compile(r"(?:rule 'tcp:[^:']*:|Failed to bind port )(\d+)")
EVERYWHERE = frozenset({"", "0.0.0.0"})
# Docker's network mode of a container that has the guest's own network.
HOST_NETWORK = "host"

Port = tuple[str, int]
# The addresses in the guest that each port is bound to.
Bound = Mapping[Port, frozenset[str]]


class Forwards(Protocol):
    """The forwards of one machine's published ports, in its hypervisor.

    guest: the guest's address that they lead to. protocols: "tcp" and "udp", as far as they can be forwarded.
    All methods raise MachineError or OSError when the hypervisor doesn't answer: the caller then asks for new Forwards.
    """

    guest: str
    protocols: frozenset[str]

    def current(self) -> set[Port]:
        """What is forwarded now, as the hypervisor says; the machine's own ports (Docker, SSH) are left out."""

    def add(self, protocol: str, port: int) -> str:
        """Forward the port; returns why that can't be, "" when it is done."""

    def drop(self, protocol: str, port: int) -> None: ...


class NoForwards:
    """The forwards of a hypervisor that takes none while the machine runs."""

    guest = ""
    protocols: frozenset[str] = frozenset()

    def current(self) -> set[Port]:
        return set()

    def add(self, protocol: str, port: int) -> str:
        return "the hypervisor can't add forwards while the machine runs"

    def drop(self, protocol: str, port: int) -> None: ...


@dataclass(frozen=True)
class Plan:
    """direct: what the hypervisor forwards. over_ssh: TCP ports, each with the guest's address that SSH leads to.

    failed: why other ports can't be forwarded.
    """

    direct: set[Port]
    over_ssh: dict[Port, str]
    failed: dict[Port, str]


def published(containers: Sequence[Mapping[str, Any]]) -> dict[Port, frozenset[str]]:
    """The ports that containers publish, from the answer to GET /containers/json."""
    found: dict[Port, frozenset[str]] = {}
    for container in containers:
        for entry in container.get("Ports") or []:
            if number := entry.get("PublicPort"):
                port = (str(entry["Type"]), int(number))
                found[port] = found.get(port, frozenset()) | {str(entry.get("IP") or "")}
    return found


def uses_host_network(containers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a container has the guest's network, so that its ports are those that the guest listens on."""
    return any((container.get("HostConfig") or {}).get("NetworkMode") == HOST_NETWORK for container in containers)


def plan(bound: Bound, own: Mapping[Port, str], forwards: Forwards) -> Plan:
    """The way to each port. own: what the machine's address has already, with a word for it.

    Through SSH goes what only the guest itself reaches (127.0.0.1, ::1, another card's address), and what listens on
    IPv6 alone: the hypervisor's forwards lead to one IPv4 address.
    """
    made = Plan(set(), {}, {})
    for port, addresses in bound.items():
        protocol = port[0]
        if port in own:
            made.failed[port] = f"it is the machine's own port for {own[port]}"
        elif protocol in forwards.protocols and addresses & {*EVERYWHERE, forwards.guest}:
            made.direct.add(port)
        elif protocol == "tcp":
            made.over_ssh[port] = _nearest(addresses)
        elif protocol in forwards.protocols:
            made.failed[port] = f"{protocol.upper()} is forwarded only when it is published on 0.0.0.0"
        else:
            made.failed[port] = f"{protocol.upper()} can't be forwarded to this machine"
    return made


def bring_in_line(ways: Sequence[tuple[Forwards, set[Port]]]) -> dict[Port, str]:
    """Drop and add forwards until each way has those it is given; returns why some can't be had.

    All are dropped before the first is added: a port may have changed its way.
    """
    missing: list[tuple[Forwards, Port]] = []
    for way, wanted in ways:
        current = way.current()
        for port in sorted(current - wanted):
            way.drop(*port)
        missing += ((way, port) for port in sorted(wanted - current))
    return {port: why for way, port in missing if (why := way.add(*port))}


def own(address: Address) -> dict[Port, str]:
    """The ports on the machine's address that lead to its Docker and SSH."""
    return {("tcp", address.docker_port): "Docker", ("tcp", address.ssh_port): "SSH"}


def why_not(protocol: str, host: str, port: int) -> str:
    """Why this process can't open the port, "" when it can. It is opened and closed again."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if sys.platform != "win32" and protocol == "tcp":
            # As QEMU and VirtualBox do: a connection that has ended lingers for a minute without this.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            if protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            return explain(error, host, port)
    return ""


def explain(error: OSError, host: str, port: int) -> str:
    """Why a port couldn't be opened."""
    # Windows gives EACCES for a port that another program has for itself, too.
    if error.errno == errno.EACCES and sys.platform != "win32" and port < PRIVILEGED:
        return f"ports below {PRIVILEGED} need root here"
    if error.errno in {errno.EADDRINUSE, errno.EACCES}:
        return f"{_TAKEN} on {host}"
    return f"it can't be opened on {host}: {error.strerror or error}"


def first_unprivileged() -> int:
    """The first port that every user of this host may open."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return PRIVILEGED


def blocked(address: Address) -> DriverFailed | None:
    """The error for a machine that can't be started because this process can't open its Docker's or SSH's port."""
    for (protocol, port), what in own(address).items():
        if why := why_not(protocol, address.host, port):
            return _blocked(port, what, why)
    return None


def refused(address: Address, said: str) -> DriverFailed:
    """The error for a machine that QEMU didn't start because of a port; said: its own words."""
    rule = _RULE.search(said)
    port = int(rule[1]) if rule else address.docker_port
    if why := why_not("tcp", address.host, port):
        error = _blocked(port, own(address).get(("tcp", port), "a forward"), why)
    elif not rule and (other := blocked(address)):
        error = other
    else:
        why = f"the user that runs QEMU may not open it on {address.host}"
        error = _blocked(port, own(address).get(("tcp", port), "a forward"), why)
    error.details = said.strip()
    return error


def _blocked(port: int, what: str, why: str) -> DriverFailed:
    hint = f"see which program: {_SHOW.get(sys.platform, _SHOW['linux']).format(port)}"
    if _TAKEN not in why and port < PRIVILEGED:
        linux = f"sudo sysctl net.ipv4.ip_unprivileged_port_start={port}"
        hint = linux if sys.platform == "linux" else f"choose a port above {PRIVILEGED}"
    return DriverFailed(f"port {port}, for {what}, can't be opened: {why}", hint=hint)


def only_inside(bound: Bound) -> list[str]:
    """A sentence for each port that can't be reached at the guest's own address on a network."""
    inside = {port: at for port, at in bound.items() if all(ip == "::1" or ip.startswith("127.") for ip in at)}
    return [
        f"port {number}/{protocol} is published inside of the machine only, on {', '.join(sorted(at))}"
        for (protocol, number), at in sorted(inside.items())
    ]


def sentences(failed: Mapping[Port, str]) -> list[str]:
    """A sentence for each port that isn't forwarded."""
    return [_sentence(f"{number}/{protocol}", why) for (protocol, number), why in sorted(failed.items())]


def note(folder: MachineFolder, warnings: Sequence[str]) -> None:
    """Keep the sentences for `machine status`. Raises OSError."""
    files.write(folder / NOTE, json.dumps(warnings, ensure_ascii=False))


def warnings(folder: MachineFolder) -> list[str]:
    """What the machine's helper noted last."""
    try:
        noted = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(noted, list):
        return []
    # Version 0.1 noted ports that were taken: ["8080/tcp"].
    return [_sentence(str(it), _TAKEN) if _OLD.fullmatch(str(it)) else str(it) for it in noted]


def _sentence(port: str, why: str) -> str:
    return f"port {port} isn't forwarded: {why}"


def _nearest(addresses: frozenset[str]) -> str:
    """The address to go to inside of the guest."""
    if addresses & {*EVERYWHERE, "127.0.0.1"}:
        return "127.0.0.1"
    if addresses & {"::", "::1"}:
        return "::1"
    return min(addresses)

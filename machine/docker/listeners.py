"""The listening sockets of a Linux guest, from /proc/net: the ports of containers that have the guest's own network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from machine.docker.ports import Port
from machine.folders.mount_spec import LOOPBACK_PORT
from machine.spec import DOCKER_PORT

FILES = ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6")
# Column "st" (Linux, include/net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE of a UDP socket that is bound, not connected.
_LISTENS = {"tcp": "0A", "udp": "07"}
# Ports of the guest itself: SSH, Docker, that of folders over SSH, and DHCP's clients.
_GUESTS = {("tcp", 22), ("tcp", DOCKER_PORT), ("tcp", LOOPBACK_PORT), ("udp", 68), ("udp", 546)}
# The addresses of systemd-resolved, in guests that have it.
_RESOLVERS = {"127.0.0.53", "127.0.0.54"}
# The first port that Linux gives to clients: a UDP socket from here on belongs to a client, not to a service.
_EPHEMERAL = 32768
_UDP_EVERYWHERE = {"0.0.0.0", "::"}


def parse(text: str) -> dict[Port, frozenset[str]]:
    """The ports that services in the guest listen on, and their addresses. text: the contents of FILES, in order."""
    found: dict[Port, frozenset[str]] = {}
    for port, address in _sockets(text):
        if port in _GUESTS or address in _RESOLVERS:
            continue
        if port[0] == "udp":
            if port[1] >= _EPHEMERAL or address not in _UDP_EVERYWHERE:
                continue
            address = "0.0.0.0"  # a UDP socket on :: takes IPv4, too
        found[port] = found.get(port, frozenset()) | {address}
    return found


def _sockets(text: str) -> Iterator[tuple[Port, str]]:
    protocol = ""
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["sl", "local_address"]:
            # Only UDP's table has a column for dropped packets.
            protocol = "udp" if words[-1] == "drops" else "tcp"
        elif protocol and len(words) > 3 and words[3] == _LISTENS[protocol]:
            address, _, port = words[1].partition(":")
            yield (protocol, int(port, 16)), _address(address)


def _address(text: str) -> str:
    """Each 32 bits of an address are a number in the guest's byte order, which is little-endian."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)

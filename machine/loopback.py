"""A separate loopback address for each machine.

On Linux and Windows all of 127.0.0.0/8 is the host itself, without any setup: two machines never collide, no VPN routes
it away, no other host can reach it. The store's path chooses a /24 of 127.77.0.0/16, so that two stores (two users,
parallel CI jobs) don't use the same addresses. macOS has 127.0.0.1 only, unless root makes aliases of that /24: without
them each machine gets its own ports.
"""

from __future__ import annotations

import os
import socket
import sys
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from machine.docker import ports
from machine.errors import CheckFailed
from machine.spec import DOCKER_PORT, Address

SSH = (22, 2222)
_HOSTS = range(2, 255)


def choose(
    taken: Collection[Address],
    store: Path,
    *,
    platform: str = sys.platform,
    lowest_port: int = 0,
    is_free: Callable[[str, int], bool] | None = None,
    aliases: Callable[[], Collection[str]] | None = None,
) -> Address:
    """An address that no machine of the store has, and on which the machine's ports can be opened now.

    lowest_port: the lowest port that the opening process may open. is_free(host, port) says whether a port can be
    opened here; aliases() are the addresses of the loopback device. Raises CheckFailed when no address is left.
    """
    is_free = is_free or (lambda host, port: not ports.why_not("tcp", host, port))

    def free(host: str, port: int) -> bool:
        return port >= lowest_port and is_free(host, port)

    hosts = {address.host for address in taken}
    there = set((aliases or own_addresses)()) if platform == "darwin" else None
    for host in _block(store):
        if there is not None and host not in there:
            continue
        if host not in hosts and free(host, DOCKER_PORT) and (ssh := _ssh_port(host, free)):
            return Address(host, DOCKER_PORT, ssh)
    if platform == "darwin":
        return _ports_of_localhost(taken, free)
    raise CheckFailed("no loopback address is free for another machine", hint="machine ls")


def own_addresses() -> set[str]:
    """The IPv4 addresses of this computer's network devices."""
    import psutil

    return {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    }


def alias_command(store: Path, count: int = 16) -> str:
    """What gives macOS the first addresses of the store's machines, until it is switched off."""
    prefix = next(_block(store)).rpartition(".")[0]
    script = f"for n in $(seq 2 {count + 1}); do ifconfig lo0 alias {prefix}.$n; done"
    return f"sudo sh -c '{script}'"


def _block(store: Path) -> Iterator[str]:
    # Resolve the path, so that a symbolic link to the store gives the same block.
    third = zlib.crc32(os.fsencode(os.path.realpath(store))) % 255
    return (f"127.77.{third}.{last}" for last in _HOSTS)


def _ssh_port(host: str, free: Callable[[str, int], bool]) -> int | None:
    """22 if an ordinary user may open it and no sshd listens on all addresses of the host, else 2222."""
    return next((port for port in SSH if free(host, port)), None)


def _ports_of_localhost(taken: Collection[Address], free: Callable[[str, int], bool]) -> Address:
    host = "127.0.0.1"
    used = {port for address in taken if address.host == host for port in (address.docker_port, address.ssh_port)}
    found = (port for port in range(DOCKER_PORT, 65536) if port not in used and free(host, port))
    docker = next(found, None)
    ssh = next((port for port in range(SSH[1], 65536) if port not in {*used, docker} and free(host, port)), None)
    if docker is None or ssh is None:
        raise CheckFailed("no port is free on 127.0.0.1", hint="machine ls")
    return Address(host, docker, ssh)

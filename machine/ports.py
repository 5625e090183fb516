"""The ports that containers publish, and which of them a machine's helper process could not forward.

Every driver whose machines are on loopback has such a helper, and forwards ports in its own way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from machine import files
from machine.paths import Home

if TYPE_CHECKING:
    from machine.docker import Client

TAKEN = "ports.json"

Port = tuple[str, int]


class Forwards(Protocol):
    """The forwards of one machine. taken: those that another program of the host has."""

    taken: set[Port]

    def bring_in_line(self, wanted: set[Port]) -> None: ...


def published(containers: list[dict[str, Any]]) -> set[Port]:
    """The ports that containers publish to others than the guest itself, from the answer to GET /containers/json."""
    return {
        (port["Type"], port["PublicPort"])
        for container in containers
        for port in container.get("Ports") or []
        if port.get("PublicPort") and port["Type"] in {"tcp", "udp"} and not _guest_only(port.get("IP", ""))
    }


def taken(home: Home) -> list[str]:
    """What `follow` found taken, as "8080/tcp"."""
    try:
        found = json.loads((home / TAKEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(port) for port in found] if isinstance(found, list) else []


def follow(home: Home, forwards: Forwards, client: Client, *, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Keep the forwards in line as long as Docker answers and goes_on says so.

    Raises DockerFailed when Docker no longer answers, and what bring_in_line raises.
    """
    noted: set[Port] | None = None
    for _ in client.container_events():
        containers = client.get("/containers/json")
        assert isinstance(containers, list)
        if not goes_on():
            return
        forwards.bring_in_line(published(containers))
        if forwards.taken != noted:
            noted = set(forwards.taken)
            files.write(home / TAKEN, json.dumps(sorted(f"{port}/{protocol}" for protocol, port in noted)))


def _guest_only(address: str) -> bool:
    return address.startswith("127.") or address == "::1"

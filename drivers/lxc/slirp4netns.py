"""slirp4netns: the network of a container, in user mode, as QEMU has it. Its API is one JSON object a connection.

https://github.com/rootless-containers/slirp4netns, "API socket".
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from machine.docker import ports
from machine.docker.ports import Port
from machine.errors import DriverFailed
from machine.reasons import reason
from machine.spec import DOCKER_PORT, Address
from machine.usernet import GUEST

# Seconds.
TIMEOUT = 10.0


class Slirp4netns:
    """The forwards of one machine; also those of its Docker and SSH. path: of the API's socket."""

    guest = GUEST
    protocols = frozenset({"tcp", "udp"})

    def __init__(self, path: Path, address: Address) -> None:
        self.path = path
        self.address = address

    def open_own(self) -> None:
        """Forward the machine's Docker and SSH, unless that is so already. Raises DriverFailed."""
        there = self._listed()
        for here, inside in ((self.address.docker_port, DOCKER_PORT), (self.address.ssh_port, 22)):
            if ("tcp", here) not in there and (why := self._forward("tcp", here, inside)):
                raise ports.refused(self.address, f"rule 'tcp:{self.address.host}:{here}': {why}")

    def current(self) -> set[Port]:
        return self._listed().keys() - ports.own(self.address).keys()

    def add(self, protocol: str, port: int) -> str:
        if not (why := self._forward(protocol, port, port)):
            return ""
        return ports.why_not(protocol, self.address.host, port) or f"slirp4netns says: {why}"

    def drop(self, protocol: str, port: int) -> None:
        number = self._listed().get((protocol, port))
        if number is not None:
            self._ask("remove_hostfwd", {"id": number})

    def _listed(self) -> dict[Port, int]:
        """The forwards on the machine's address, with slirp4netns' number for each."""
        answer = self._ask("list_hostfwd")
        # Its manual has "return" around it, version 1.2 doesn't.
        entries = (answer.get("return") or answer).get("entries") or []
        return {
            (entry["proto"], entry["host_port"]): entry["id"]
            for entry in entries
            if entry["host_addr"] == self.address.host
        }

    def _forward(self, protocol: str, here: int, inside: int) -> str:
        """Returns why not, "" when it is done."""
        arguments = {
            "proto": protocol,
            "host_addr": self.address.host,
            "host_port": here,
            "guest_addr": self.guest,
            "guest_port": inside,
        }
        answer = self._ask("add_hostfwd", arguments)
        return str((answer.get("error") or {}).get("desc", ""))

    def _ask(self, command: str, arguments: dict[str, object] | None = None) -> dict[str, Any]:
        question = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(str(self.path))
                connection.sendall(json.dumps(question).encode())
                connection.shutdown(socket.SHUT_WR)
                answer = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
        except (OSError, ValueError) as error:
            raise DriverFailed(f"slirp4netns doesn't answer: {reason(error)}") from error
        return answer if isinstance(answer, dict) else {}

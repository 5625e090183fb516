"""Ports of a machine on its loopback address: through QEMU's user-mode network, or through SSH to another host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from machine.docker.ports import Port, why_not
from machine.errors import MachineError
from machine.run import Run, detach
from machine.spec import DOCKER_PORT, Address

from .connection import Uri, explained

if TYPE_CHECKING:
    import libvirt

CONTROL = "tunnel.ssh"
# ssh makes the socket under a longer name first.
SUFFIX = 18
TIMEOUT = 20.0


def monitor(find: Callable[[], libvirt.virDomain | None]) -> Callable[[str], str]:
    """QEMU's human monitor, through libvirt. find: looks the domain up."""

    def say(line: str) -> str:
        import libvirt_qemu

        with explained("libvirt doesn't allow the use of QEMU's monitor"):
            flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            return str(libvirt_qemu.qemuMonitorCommand(find(), line, flags)).strip()

    return say


class Tunnel:
    """An SSH connection to the hypervisor's host, made as libvirt makes its own; target is the machine's address there.

    SSH carries no UDP.
    """

    protocols = frozenset({"tcp"})

    def __init__(self, uri: Uri, control: Path, address: Address, target: str, run: Run) -> None:
        self.uri = uri
        self.control = control
        self.address = address
        self.guest = target
        self.run = run
        self.close: Callable[[], None] = lambda: None
        self._current: set[Port] = set()

    def hold(self, log: Path) -> None:
        """Open the tunnel; returns when the connection has ended. One that was left over is ended before."""
        with contextlib.suppress(MachineError):
            self.run(self._argv("-O", "exit"), timeout=TIMEOUT, check=False)
        self._current.clear()
        own = [(self.address.docker_port, DOCKER_PORT), (self.address.ssh_port, 22)]
        words = [word for here, there in own for word in ("-L", self._forward(here, there))]
        with log.open("ab") as output:
            process = detach(self._argv("-M", "-N", *words), output=output)
        self.close = process.terminate
        process.wait()

    def current(self) -> set[Port]:
        return set(self._current)

    def add(self, protocol: str, port: int) -> str:
        if said := self._tell("forward", port):
            return why_not(protocol, self.address.host, port) or f"ssh says: {said}"
        self._current.add((protocol, port))
        return ""

    def drop(self, protocol: str, port: int) -> None:
        self._tell("cancel", port)
        self._current.discard((protocol, port))

    def _tell(self, command: str, port: int) -> str:
        """Tell the connection; returns what it says against it."""
        argv = self._argv("-O", command, "-L", self._forward(port, port))
        done = self.run(argv, timeout=TIMEOUT, check=False)
        return "" if done.code == 0 else " ".join(done.stderr.split()) or f"exit code {done.code}"

    def _forward(self, here: int, there: int) -> str:
        return f"{self.address.host}:{here}:{self.guest}:{there}"

    def _argv(self, *words: str) -> list[str]:
        uri = self.uri
        options = {
            "BatchMode": "yes",
            "ControlPath": '"' + str(self.control).replace("%", "%%") + '"',
            "ExitOnForwardFailure": "yes",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            **({"StrictHostKeyChecking": "no"} if uri.no_verify else {}),
        }
        argv = [uri.command, *(word for key, value in options.items() for word in ("-o", f"{key}={value}")), *words]
        argv += ["-i", uri.keyfile] if uri.keyfile else []
        argv += ["-p", str(uri.port)] if uri.port else []
        argv += ["-l", uri.user] if uri.user else []
        return [*argv, "--", uri.host]

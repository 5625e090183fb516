"""Ports of a machine on its loopback address: through QEMU's user-mode network, or through SSH to another host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from machine.errors import MachineError
from machine.ports import Port
from machine.run import Run, detach
from machine.spec import Address

from .connection import Uri

if TYPE_CHECKING:
    import libvirt

CONTROL = "tunnel.ssh"
# ssh makes the socket under a longer name first.
SUFFIX = 18
TIMEOUT = 20.0


class Forwards:
    """The forwards of published ports. taken: those that can't be had on this host."""

    def __init__(self, reserved: Iterable[Port]) -> None:
        self.reserved = set(reserved)
        self.current: set[Port] = set()
        self.taken: set[Port] = set()

    def bring_in_line(self, wanted: set[Port]) -> None:
        for port in sorted(self.current - wanted):
            self.drop(*port)
            self.current.discard(port)
        self.taken &= wanted
        for port in sorted(wanted - self.current - self.reserved):
            if self.add(*port):
                self.taken.discard(port)
                self.current.add(port)
            else:
                self.taken.add(port)

    def add(self, protocol: str, port: int) -> bool:
        """Whether the port is forwarded now. passt can't be told while it runs."""
        return False

    def drop(self, protocol: str, port: int) -> None: ...


class Slirp(Forwards):
    """Forwards in QEMU, which is told through libvirt's way to its monitor. find: looks the domain up."""

    def __init__(self, find: Callable[[], libvirt.virDomain | None], address: Address) -> None:
        super().__init__(_own(address))
        self.find = find
        self.host = address.host

    def add(self, protocol: str, port: int) -> bool:
        return not self._monitor(f"hostfwd_add machine {protocol}:{self.host}:{port}-:{port}")

    def drop(self, protocol: str, port: int) -> None:
        self._monitor(f"hostfwd_remove machine {protocol}:{self.host}:{port}")

    def _monitor(self, line: str) -> str:
        import libvirt
        import libvirt_qemu

        try:
            answer = libvirt_qemu.qemuMonitorCommand(
                self.find(), line, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
            )
        except (libvirt.libvirtError, MachineError) as error:
            return str(error)
        return str(answer).strip()


class Tunnel(Forwards):
    """An SSH connection to the hypervisor's host, made as libvirt makes its own; target is the machine's address there.

    SSH carries no UDP.
    """

    def __init__(self, uri: Uri, control: Path, address: Address, target: str, run: Run) -> None:
        super().__init__(_own(address))
        self.uri = uri
        self.control = control
        self.address = address
        self.target = target
        self.run = run
        self.close: Callable[[], None] = lambda: None

    def hold(self, log: Path) -> None:
        """Open the tunnel; returns when the connection has ended. One that was left over is ended before."""
        with contextlib.suppress(MachineError):
            self.run(self._argv("-O", "exit"), timeout=TIMEOUT, check=False)
        self.current.clear()
        own = [(self.address.docker_port, 2375), (self.address.ssh_port, 22)]
        words = [word for here, there in own for word in ("-L", self._forward(here, there))]
        with log.open("ab") as output:
            process = detach(self._argv("-M", "-N", *words), output=output)
        self.close = process.terminate
        process.wait()

    def add(self, protocol: str, port: int) -> bool:
        return protocol == "tcp" and self._tell("forward", port)

    def drop(self, protocol: str, port: int) -> None:
        self._tell("cancel", port)

    def _tell(self, command: str, port: int) -> bool:
        try:
            argv = self._argv("-O", command, "-L", self._forward(port, port))
            return self.run(argv, timeout=TIMEOUT, check=False).code == 0
        except MachineError:
            return False

    def _forward(self, here: int, there: int) -> str:
        return f"{self.address.host}:{here}:{self.target}:{there}"

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


def _own(address: Address) -> set[Port]:
    return {("tcp", address.docker_port), ("tcp", address.ssh_port)}

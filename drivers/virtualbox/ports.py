"""The helper process of a running machine: published container ports appear on the machine's address.

It ends with the machine. Docker's event stream says when a container came or went; the NAT's rules are then brought in
line with the ports that running containers publish. A connection that breaks is what tells that a machine has ended, on
every system; VirtualBox is asked only then.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from pathlib import Path

from machine import docker, store
from machine.driver import State
from machine.errors import MachineError
from machine.paths import Home
from machine.ports import Port, follow
from machine.run import detach, run

from .parse import Forward
from .vboxmanage import VBoxManage

PIDFILE = "ports.pid"
LOG = "ports.log"
# Docker isn't there while the machine boots, or while dockerd restarts. Seconds.
SHORTEST, LONGEST = 0.5, 5.0
# Seconds for an answer of Docker's, the longer the more often there was none: where the processor is interpreted, a TLS
# handshake takes a minute, and each that is given up makes the next one slower.
MOST_PATIENT = 300.0
_ALIVE = {State.RUNNING, State.PAUSED, State.STARTING}
_RULE = re.compile(r"(tcp|udp)-(\d+)")


def is_published(rule: Forward) -> bool:
    return _RULE.fullmatch(rule.name) is not None


def is_free(protocol: str, host: str, port: int) -> bool:
    """Whether the port can be opened: VirtualBox takes a rule for one that can't, and says nothing."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if sys.platform != "win32" and protocol == "tcp":
            # A connection that has ended lingers for a minute without this.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            if protocol == "tcp":
                probe.listen(1)
        except OSError:
            return False
    return True


class Forwards:
    """The rules for published ports of one running machine. taken: those that another program of the host has."""

    def __init__(self, vboxmanage: VBoxManage, uuid: str, host: str, reserved: set[Port]) -> None:
        self.vboxmanage = vboxmanage
        self.uuid = uuid
        self.host = host
        self.reserved = reserved
        self.taken: set[Port] = set()

    def bring_in_line(self, wanted: set[Port]) -> None:
        """What stands in the machine's settings counts: a snapshot may have brought rules back."""
        current = self.current()
        for protocol, port in sorted(current - wanted):
            self.vboxmanage("controlvm", self.uuid, "natpf1", "delete", f"{protocol}-{port}")
        self.taken &= wanted
        for protocol, port in sorted(wanted - current - self.reserved):
            if not is_free(protocol, self.host, port):
                self.taken.add((protocol, port))
                continue
            rule = Forward(f"{protocol}-{port}", protocol, self.host, port, port)
            self.vboxmanage("controlvm", self.uuid, "natpf1", str(rule))
            self.taken.discard((protocol, port))

    def current(self) -> set[Port]:
        info = self.vboxmanage.info(self.uuid)
        return {(rule.protocol, rule.port) for rule in info.forwards if is_published(rule)} if info else set()


def begin(home: Home) -> None:
    """Start the helper; one of an earlier life of the machine ends when it notices."""
    # An open file would keep the machine's folder from being removed on Windows.
    log = os.devnull if sys.platform == "win32" else home / LOG
    with Path(log).open("wb") as output:
        detach([sys.executable, "-m", "machine.drivers.virtualbox", home.folder], output=output)


def main(folder: str) -> None:
    home = Home(Path(folder))
    machine = store.read(home)
    address = machine.address
    assert address is not None
    (home / PIDFILE).write_text(str(os.getpid()), encoding="utf-8")
    vboxmanage = VBoxManage(run, home.store)
    reserved = {("tcp", address.docker_port), ("tcp", address.ssh_port)}
    forwards = Forwards(vboxmanage, machine.uuid, address.host, reserved)
    pause, patience = SHORTEST, docker.TIMEOUT
    while _is_the_newest(home) and _lives(vboxmanage, machine.uuid):
        began = time.monotonic()
        # VBoxManage or the disk failed, and the next round sees why: the machine has ended, or it will work.
        with contextlib.suppress(MachineError, OSError):
            client = docker.Client(machine, home, address, patience)
            follow(home, forwards, client, goes_on=lambda: _is_the_newest(home))
        # A guest that boots has better things to do than to refuse us all the time.
        if time.monotonic() - began < 2 * patience:
            pause, patience = min(pause * 1.5, LONGEST), min(patience * 1.5, MOST_PATIENT)
        else:
            pause, patience = SHORTEST, docker.TIMEOUT
        time.sleep(pause)


def _is_the_newest(home: Home) -> bool:
    try:
        return (home / PIDFILE).read_text(encoding="utf-8") == str(os.getpid())
    except OSError:
        return False  # the machine was removed


def _lives(vboxmanage: VBoxManage, uuid: str) -> bool:
    try:
        info = vboxmanage.info(uuid)
    except MachineError:
        return True
    return info is not None and info.state in _ALIVE

"""Forwarded ports: in QEMU's user-mode network through libvirt, and through SSH."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from machine.drivers.libvirt import forwards
from machine.drivers.libvirt.connection import Uri
from machine.drivers.libvirt.forwards import Tunnel, monitor

from machine.docker.ports import bring_in_line
from machine.errors import DriverFailed
from machine.run import Completed
from machine.spec import Address
from tests.unit.libvirt.conftest import refusal

ADDRESS = Address("127.77.0.2", 2375, 2222)


class Ssh:
    """Stands in for `run` and `detach`. refused: words that an argv is refused for."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.refused: set[str] = set()

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.calls.append(words)
        return Completed(words, int(bool(self.refused & set(words))), "", "mux: it rains")


def tunnel(ssh: Ssh, uri: str = "qemu+ssh://anna@server:2022/system?keyfile=/k&command=/usr/bin/myssh") -> Tunnel:
    return Tunnel(Uri(uri), Path("/store/50% more/tunnel.ssh"), ADDRESS, "192.168.177.2", ssh)


def test_a_published_port_through_ssh() -> None:
    ssh = Ssh()
    through = tunnel(ssh)
    assert (through.guest, through.protocols) == ("192.168.177.2", {"tcp"})
    ssh.refused = {"127.77.0.2:81:192.168.177.2:81"}
    assert bring_in_line([(through, {("tcp", 80), ("tcp", 81)})]) == {("tcp", 81): "ssh says: mux: it rains"}
    assert through.current() == {("tcp", 80)}
    add = ssh.calls[0]
    assert add[0] == "/usr/bin/myssh"
    assert 'ControlPath="/store/50%% more/tunnel.ssh"' in add
    assert add[add.index("-O") :] == [
        *("-O", "forward", "-L", "127.77.0.2:80:192.168.177.2:80"),
        *("-i", "/k", "-p", "2022", "-l", "anna", "--", "server"),
    ]
    ssh.calls.clear()
    bring_in_line([(through, set())])
    assert [call[call.index("-O") + 1] for call in ssh.calls] == ["cancel"]
    assert through.current() == set()


def test_the_tunnel_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh, started = Ssh(), []

    def detach(argv: list[str], *, output: object) -> subprocess.Popen[bytes]:
        started.append(argv)
        return subprocess.Popen(["true"])

    monkeypatch.setattr(forwards, "detach", detach)
    through = tunnel(ssh, "qemu+ssh://server/system?no_verify=1")
    through.add("tcp", 80)
    ssh.calls.clear()
    through.close()
    through.hold(tmp_path / "log")
    assert through.current() == set(), "a new connection forwards nothing yet"
    assert ssh.calls[0][-4:-2] == ["-O", "exit"], "one that was left over is ended"
    [argv] = started
    assert "StrictHostKeyChecking=no" in argv
    assert argv[-6:-2] == ["-L", "127.77.0.2:2375:192.168.177.2:2375", "-L", "127.77.0.2:2222:192.168.177.2:22"]
    through.close()


def test_qemus_monitor(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt_qemu

    def command(domain: object, line: str, flags: int) -> str:
        if line == "busy":
            raise refusal("the monitor is busy")
        return f"{line}: done\r\n"

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    assert monitor(lambda: None)("info usernet") == "info usernet: done"
    # That isn't a port that is taken: the helper tries again.
    with pytest.raises(DriverFailed, match="the monitor is busy"):
        monitor(lambda: None)("busy")

"""What a hypervisor can do, and the words for a domain's state."""

from __future__ import annotations

from typing import Any

import pytest
from machine.drivers.libvirt import hypervisor
from machine.drivers.libvirt.connection import Connection, Uri

from machine.driver import State
from machine.errors import CheckFailed
from machine.paths import MachineFolder
from machine.run import run
from tests.unit.libvirt.conftest import refusal

pytest.importorskip("libvirt", reason="libvirt-python isn't installed")


class Raw:
    """A connection to QEMU with these types of domains."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def getType(self) -> str:
        return "QEMU"

    def getInfo(self) -> list[object]:
        return ["x86_64", 8000]

    def isAlive(self) -> int:
        return 1

    def getDomainCapabilities(self, emulator: None, architecture: str, board: str, kind: str) -> str:
        """Other processors are emulated where that is among the kinds."""
        if kind not in self.kinds or (architecture != "x86_64" and (kind != "qemu" or architecture not in self.kinds)):
            raise refusal("invalid argument")
        return f"<domainCapabilities><path>/usr/bin/{board}-{kind}</path></domainCapabilities>"


def connected(uri: str, *kinds: str) -> Connection:
    connection = Connection(Uri(uri))
    connection._opened = Raw(*kinds)
    return connection


def chosen(asked: str, uri: str, *kinds: str, architecture: str = "") -> hypervisor.Choice:
    from pathlib import Path

    folder = MachineFolder(Path("/s/machines/dev"))
    return hypervisor.choose(asked, connected(uri, *kinds), folder, run, architecture)


def test_without_kvm_it_is_emulated_and_said_so() -> None:
    choice = chosen("auto", "qemu:///system", "qemu")
    assert (choice.type, choice.architecture, choice.emulator) == ("qemu", "x86_64", "/usr/bin/q35-qemu")
    assert "TCG" in choice.notes[0]


def test_another_hosts_kvm_is_believed() -> None:
    assert chosen("auto", "qemu+ssh://server/system", "kvm", "qemu").type == "kvm"


@pytest.mark.parametrize(
    ("proved", "accessible", "uri", "expected"),
    [
        ("kvm", True, "qemu:///system", "kvm"),
        ("tcg", True, "qemu:///system", "qemu"),
        ("tcg", False, "qemu:///system", "kvm"),  # libvirtd, which is root, has access
        ("tcg", False, "qemu:///session", "qemu"),
    ],
)
def test_this_hosts_kvm_is_proved(
    monkeypatch: pytest.MonkeyPatch, proved: str, accessible: bool, uri: str, expected: str
) -> None:
    monkeypatch.setattr("machine.acceleration.choose", lambda *_: proved)
    monkeypatch.setattr("os.access", lambda *_: accessible)
    choice = chosen("auto", uri, "kvm", "qemu")
    assert choice.type == expected
    assert bool(choice.notes) == (expected == "qemu")


def test_what_is_asked_for_must_be_there() -> None:
    assert chosen("qemu", "qemu:///system", "kvm", "qemu").type == "qemu"
    for asked, hint in (("kvm", "--libvirt-domain-type qemu"), ("xen", "auto, kvm or qemu")):
        with pytest.raises(CheckFailed) as refused:
            chosen(asked, "qemu:///system", "qemu")
        assert hint in refused.value.hint


def test_other_processors_are_emulated_whatever_works_here() -> None:
    kinds = ("kvm", "qemu", "aarch64")
    choice = chosen("auto", "qemu:///system", *kinds, architecture="aarch64")
    assert (choice.type, choice.architecture, choice.emulator) == ("qemu", "aarch64", "/usr/bin/virt-qemu")
    assert choice.notes == ["aarch64 processors are emulated in software (TCG) on the x86_64 host, which is slow"]
    assert chosen("qemu", "qemu:///system", *kinds, architecture="aarch64") == choice
    with pytest.raises(CheckFailed, match="kvm runs x86_64 processors only"):
        chosen("kvm", "qemu:///system", *kinds, architecture="aarch64")
    assert chosen("qemu", "qemu:///system", *kinds, architecture="x86_64").notes == []


def test_nothing_emulates_them() -> None:
    with pytest.raises(CheckFailed, match="of the type qemu with aarch64 processors") as refused:
        chosen("auto", "qemu:///system", "kvm", "qemu", architecture="aarch64")
    assert "qemu-system-a" in refused.value.hint


class Domain:
    def __init__(self, state: int, why: int = 0, saved: bool = False) -> None:
        self.is_in = [state, why]
        self.saved = saved

    def state(self) -> list[int]:
        return self.is_in

    def hasManagedSaveImage(self) -> int:
        return int(self.saved)


@pytest.mark.parametrize(
    ("domain", "state", "reason"),
    [
        (Domain(1, 1), State.RUNNING, "running"),
        (Domain(3, 5), State.PAUSED, "paused (an I/O error of the disk: is its storage pool full?)"),
        (Domain(4), State.STOPPING, "shutting down"),
        (Domain(5, 2), State.STOPPED, "shut off (destroyed)"),
        (Domain(5, 5, saved=True), State.SAVED, "shut off"),
        (Domain(6), State.ERROR, "crashed"),
        (Domain(42), State.ERROR, "state 42"),
    ],
)
def test_states(domain: Any, state: State, reason: str) -> None:
    assert hypervisor.state(domain) is state
    assert hypervisor.reason(domain) == reason


def test_uri() -> None:
    uri = Uri("qemu+ssh://anna@server:2022/system?keyfile=/k&no_verify=1")
    assert (uri.host, uri.user, uri.port, uri.keyfile, uri.command) == ("server", "anna", 2022, "/k", "ssh")
    assert (uri.is_remote, uri.over_ssh, uri.is_session, uri.no_verify) == (True, True, False, True)
    local = Uri("qemu:///session")
    assert (local.is_remote, local.over_ssh, local.is_session, local.no_verify) == (False, False, True, False)

"""The command that installs a tool, for each package manager."""

from __future__ import annotations

import os
import sys

import pytest

from machine import packages, resources


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "architecture", lambda: "x86_64")


def here(monkeypatch: pytest.MonkeyPatch, manager: str, *, uid: int = 1000) -> None:
    """A host with that package manager."""
    monkeypatch.setattr(packages, "manager", lambda: manager)
    monkeypatch.setattr(os, "geteuid", lambda: uid, raising=False)


@pytest.mark.parametrize(
    ("manager", "tool", "command"),
    [
        ("apt-get", "qemu-img", "sudo apt-get install -y qemu-system-x86 qemu-utils"),
        ("dnf", "qemu-system-x86_64", "sudo dnf install -y qemu-system-x86 qemu-img"),
        ("apt-get", "qemu-system-aarch64", "sudo apt-get install -y qemu-system-arm qemu-utils"),
        ("dnf", "qemu-system-aarch64", "sudo dnf install -y qemu-system-aarch64 qemu-img"),
        ("pacman", "sshfs", "sudo pacman -S --noconfirm sshfs"),
        ("zypper", "ssh", "sudo zypper --non-interactive install openssh-clients"),
        ("brew", "qemu-system-aarch64", "brew install qemu"),
        ("winget", "VBoxManage", "winget install --exact --id Oracle.VirtualBox"),
        ("", "qemu-img", "install qemu-img and make sure that it is on PATH"),
        ("brew", "VBoxManage", "install VBoxManage and make sure that it is on PATH"),
        ("apt-get", "no-such-tool", "install no-such-tool and make sure that it is on PATH"),
    ],
)
def test_command(monkeypatch: pytest.MonkeyPatch, manager: str, tool: str, command: str) -> None:
    here(monkeypatch, manager)
    assert packages.hint(tool) == command


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, "apt-get", uid=0)
    assert packages.command("sshfs") == ["apt-get", "install", "-y", "sshfs"]


def test_arm_gets_arms_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, "apt-get")
    monkeypatch.setattr(resources, "architecture", lambda: "aarch64")
    assert "qemu-system-arm" in packages.command("qemu-img")
    assert "qemu-system-x86" in packages.command("qemu-system-x86_64")


@pytest.mark.parametrize(
    ("platform", "there", "found"),
    [
        ("linux", {"zypper", "brew"}, "zypper"),
        ("linux", {"brew"}, ""),
        ("darwin", {"brew", "apt-get"}, "brew"),
        ("win32", {"winget"}, "winget"),
        ("freebsd14", {"apt-get"}, ""),
    ],
)
def test_manager(monkeypatch: pytest.MonkeyPatch, platform: str, there: set[str], found: str) -> None:
    monkeypatch.setattr(packages, "which", lambda name: name if name in there else None)
    assert packages.manager(platform) == found


@pytest.mark.skipif(sys.platform != "linux", reason="apt is Linux's")
def test_every_name_of_apt_is_a_package() -> None:
    """By this host's own index, where it has one."""
    from machine.run import run, which

    if not which("apt-cache"):
        pytest.skip("no apt here")
    names = {
        name for tool in [*packages._TOOLS, "qemu-img"] for name in packages._packages(tool).get("apt-get", "").split()
    }
    known = run(["apt-cache", "pkgnames"], timeout=60).stdout.split()
    if len(known) < 20_000:
        pytest.skip("apt has fetched no index")
    assert names - set(known) == set()

"""machine setup on hosts that lack something: what is printed, what is run, and what the exit code is."""

from __future__ import annotations

import json
from pathlib import Path

import machine_fake
import pytest

from machine import host_setup, packages
from machine.errors import CheckFailed, ToolMissing
from machine.images import cache
from tests.fixture_types import Invoke


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with docker and ssh."""
    monkeypatch.setattr(host_setup, "which", lambda tool: tool)


def needs(monkeypatch: pytest.MonkeyPatch, *tools: Path) -> None:
    """The driver `fake` needs these tools, and the package manager makes one each time."""

    def check(driver: machine_fake.Fake) -> list[str]:
        for tool in tools:
            if not tool.exists():
                raise ToolMissing(tool.name)
        return []

    monkeypatch.setattr(machine_fake.Fake, "check", check)
    monkeypatch.setattr(packages, "command", lambda tool: ["touch", str(tools[0].parent / tool)])


def test_a_host_that_lacks_nothing(invoke: Invoke, vms: Path) -> None:
    shown = invoke("setup")
    assert (shown.code, shown.out) == (0, "This host can make machines with the driver fake: machine create\n")


def test_what_is_missing_is_printed_and_not_done(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(monkeypatch, tmp_path / "tool")
    shown = invoke("setup")
    assert shown.code == 3
    assert "missing   tool, for the driver fake" in shown.out
    assert f"touch {tmp_path}/tool" in shown.out
    assert "machine setup --yes" in shown.out
    assert not (tmp_path / "tool").exists()
    assert json.loads(invoke("setup", "--json").out)[0]["commands"] == [["touch", str(tmp_path / "tool")]]


def test_yes_installs_one_after_the_other(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is found to be missing when the first is there."""
    needs(monkeypatch, tmp_path / "one", tmp_path / "two")
    shown = invoke("setup", "--yes")
    assert (shown.code, "This host can make machines" in shown.out) == (0, True)
    assert [line for line in shown.err.splitlines() if line.startswith("$")] == [
        f"$ touch {tmp_path}/one",
        f"$ touch {tmp_path}/two",
    ]


def test_a_command_that_brings_nothing_is_run_once(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, Path("/nowhere/tool"))
    monkeypatch.setattr(packages, "command", lambda tool: ["true"])
    shown = invoke("setup", "--yes")
    assert (shown.code, shown.err.count("$ true")) == (3, 1)
    assert "missing   tool" in shown.out


def test_a_command_that_fails_ends_it(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, Path("/nowhere/tool"))
    monkeypatch.setattr(packages, "command", lambda tool: ["false"])
    shown = invoke("setup", "--yes")
    assert (shown.code, "false failed: exit status 1" in shown.err) == (1, True)


def test_what_no_package_brings_is_told(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(driver: machine_fake.Fake) -> list[str]:
        raise CheckFailed("the processor's virtualization is off", hint="switch it on in the firmware")

    monkeypatch.setattr(machine_fake.Fake, "check", check)
    shown = invoke("setup", "--yes")
    assert shown.code == 3
    assert "missing   the processor's virtualization is off" in shown.out
    assert "Hint: switch it on in the firmware" in shown.out


@pytest.mark.parametrize(
    ("url", "can_build", "commands"),
    [
        ("http://127.0.0.1:1", True, [["machine", "image", "pull", "machineos"]]),
        ("", True, [["machine", "iso", "build"]]),
        ("", False, []),
        ("", False, [["machine", "iso", "build", "--in-machine", "--driver", "fake"]]),
    ],
)
def test_without_machineos(
    invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch, url: str, can_build: bool, commands: list[list[str]]
) -> None:
    monkeypatch.setattr(machine_fake.Fake, "cloud_images", any("--in-machine" in words for words in commands))
    cache.remove(cache.find("machineos"))
    monkeypatch.setenv("MACHINE_IMAGES_URL", url)
    monkeypatch.setattr(host_setup, "which", lambda tool: tool if can_build or tool != "mmdebstrap" else None)
    monkeypatch.setattr(packages, "command", lambda tool: [])
    shown = invoke("setup", "--json")
    (lack,) = json.loads(shown.out)
    assert (shown.code, lack["commands"], lack["needed"]) == (3, commands, True)
    assert commands or "MACHINE_IMAGES_URL" in lack["hint"]


def test_what_is_optional_fails_nothing(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_setup, "which", lambda tool: None if tool == "docker" else tool)
    shown = invoke("setup")
    assert shown.code == 0
    assert "optional  the docker client" in shown.out
    assert "This host can make machines" in shown.out

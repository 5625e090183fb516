"""machine suspend, resume, snapshot and autostart, with the driver `fake`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_fixtures import vm_of

from machine import registry, store
from machine.driver import Kind, State
from machine.paths import MachineFolder
from tests.fixture_types import Add, Invoke, Outcome

UNABLE = "Next: machine create --driver NAME\n"


def test_suspend_and_resume(invoke: Invoke, dev: MachineFolder) -> None:
    for verb, line, state in (
        ("resume", "is already running", State.RUNNING),
        ("suspend", "was suspended", State.SAVED),
        ("suspend", "is already suspended", State.SAVED),
        ("resume", "was resumed", State.RUNNING),
        ("suspend", "was suspended", State.SAVED),
        ("start", "was started", State.RUNNING),
    ):
        shown = invoke(verb, "dev")
        assert (shown.code, shown.out) == (0, f'Machine "dev" {line}.\n'), verb
        assert vm_of(dev).read_text(encoding="utf-8") == state


def test_a_suspended_machine_is_no_longer_shut_down(invoke: Invoke, dev: MachineFolder) -> None:
    invoke("suspend", "dev")
    for verb in ("stop", "restart"):
        shown = invoke(verb, "dev")
        assert (shown.code, shown.out) == (1, "")
        assert 'Error: the machine "dev" is suspended' in shown.err
        assert "machine start dev" in shown.err
    assert vm_of(dev).read_text(encoding="utf-8") == State.SAVED
    assert invoke("kill", "dev").out == 'Machine "dev" was killed.\n'
    assert vm_of(dev).read_text(encoding="utf-8") == State.STOPPED


def test_only_a_machine_that_runs_is_suspended(invoke: Invoke, add: Add) -> None:
    add("off")
    add("paused", state="Paused")
    shown = invoke("suspend", "off", "paused")
    assert (shown.code, shown.out) == (1, 'Machine "paused" was suspended.\n')
    assert 'machine "off" is not running' in shown.err


def test_a_suspend_that_fails(invoke: Invoke, add: Add, store: Path) -> None:
    add("dev", state="Running", options={"fails": "suspend"})
    assert invoke("suspend", "dev").code == 1
    assert (store / "fake" / "dev").read_text() == "Running"


def test_snapshots(invoke: Invoke, dev: MachineFolder) -> None:
    assert invoke("snapshot", "create", "dev", "up").out == 'The snapshot "up" of "dev" was made.\n'
    invoke("stop", "dev")
    assert invoke("snapshot", "create", "-q", "dev", "off") == Outcome(0, "", "")
    assert json.loads(invoke("snapshot", "ls", "--json", "dev").out) == [
        {"name": "up", "created": "2024-01-01T00:00:00+00:00", "running": True},
        {"name": "off", "created": "2024-01-01T00:00:00+00:00", "running": False},
    ]
    assert invoke("snapshot", "ls", "-q", "dev").out == "up\noff\n"
    header, up, off = invoke("snapshot", "ls", "dev").lines
    assert header.split() == ["SNAPSHOT", "CREATED", "HOLDS"]
    assert up.split()[2:] == ["memory", "and", "disk"]
    assert off.split()[2:] == ["disk"]
    shown = invoke("snapshot", "restore", "dev", "up")
    assert shown.out == '"dev" is as it was at the snapshot "up": Running.\n'
    assert vm_of(dev).read_text(encoding="utf-8") == State.RUNNING
    shown = invoke("snapshot", "restore", "--json", "dev", "off")
    assert json.loads(shown.out) == [{"name": "dev", "result": '"dev" is as it was at the snapshot "off": Stopped.'}]
    assert vm_of(dev).read_text(encoding="utf-8") == State.STOPPED
    assert invoke("snapshot", "rm", "dev", "up").out == 'The snapshot "up" of "dev" was removed.\n'
    assert invoke("snapshot", "ls", "-q", "dev").out == "off\n"


def test_a_container_keeps_no_memory(invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load("fake"), "kind", Kind.CONTAINER)
    invoke("snapshot", "create", "dev", "up")
    assert invoke("snapshot", "ls", "dev").lines[1].endswith("disk, to boot from")
    shown = invoke("suspend", "dev")
    assert "freezing its processes" in shown.err
    assert "until this computer restarts" in shown.err


def test_restore_waits_for_docker(invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from machine.docker import api

    invoke("snapshot", "create", "-q", "dev", "up")
    monkeypatch.setattr(api.Client, "ping", lambda _: False)
    shown = invoke("snapshot", "restore", "--timeout", "1", "dev", "up")
    assert (shown.code, shown.out) == (1, "")
    assert "timed out after 1 s waiting for Docker to answer" in shown.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("create", "dev", "one"), 1, "there is one of that name"),
        (("create", "dev", "a b"), 2, 'invalid name "a b" of a snapshot'),
        (("create", "dev", "1"), 2, 'invalid name "1" of a snapshot'),
        (("restore", "dev", "two"), 1, "there is none of that name"),
        (("rm", "dev", "two"), 1, "there is none of that name"),
        (("ls", "ghost"), 1, 'Docker machine "ghost" does not exist'),
    ],
)
def test_names_that_cant_be(
    invoke: Invoke, dev: MachineFolder, words: tuple[str, ...], code: int, message: str
) -> None:
    invoke("snapshot", "create", "-q", "dev", "one")
    shown = invoke("snapshot", *words)
    assert (shown.code, shown.out) == (code, "")
    assert message in shown.err


def test_autostart(invoke: Invoke, add: Add) -> None:
    add("dev")
    assert invoke("autostart", "dev") == Outcome(0, "off\n", "")
    assert invoke("autostart", "dev", "on") == Outcome(0, "", "")
    assert invoke("autostart", "dev").out == "on\n"
    assert json.loads(invoke("autostart", "--json", "dev", "off").out) == {"name": "dev", "autostart": False}
    assert invoke("autostart", "dev", "maybe").code == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("suspend", "dev"), "suspend machines"),
        (("snapshot", "ls", "dev"), "take snapshots"),
        (("snapshot", "create", "dev", "one"), "take snapshots"),
        (("snapshot", "restore", "dev", "one"), "take snapshots"),
        (("snapshot", "rm", "dev", "one"), "take snapshots"),
        (("autostart", "dev"), "start machines with the host"),
        (("autostart", "dev", "on"), "start machines with the host"),
    ],
)
def test_a_driver_that_cant(invoke: Invoke, add: Add, words: tuple[str, ...], what: str) -> None:
    add("dev", driver="none", options={"url": "tcp://192.0.2.1:2375"})
    shown = invoke(*words)
    assert (shown.code, shown.out) == (2, "")
    assert f"the driver none can't {what}" in shown.err
    assert shown.err.endswith(UNABLE)
    assert store.load("dev").driver == "none"

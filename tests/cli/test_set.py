"""machine set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import store
from machine.docker import reconfigure
from machine.errors import EngineRefused
from machine.guest import provision
from machine.instance import Instance
from machine.spec import Engine, Machine
from tests.fixture_types import Add, Invoke

RELOADED = reconfigure.Outcome.RELOADED


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-m", "1G"), 'Machine "dev": Memory changed now.'),
        (("--disk", "25G"), 'Machine "dev": Disk changed now.'),
        (
            ("--cpus", "1"),
            'Machine "dev": Processors will change at the next start: machine restart dev',
        ),
        (
            ("--memory", "1024", "--disk", "25000", "--cpus", "1"),
            'Machine "dev": Memory and disk changed now. Processors will change at the next start: machine restart dev',
        ),
        (("-m", "2G", "--cpus", "2"), 'Machine "dev" already has these settings.'),
    ],
)
def test_it_tells_when_what_changes(invoke: Invoke, add: Add, words: tuple[str, ...], line: str) -> None:
    add("dev", state="Running")
    shown = invoke("set", *words, "dev")
    assert (shown.code, shown.out) == (0, f"{line}\n")


def test_sizes_are_kept(invoke: Invoke, add: Add) -> None:
    add("default")
    assert invoke("set", "-q", "--memory", "1.5G", "--disk", "25G", "--cpus", "1").out == ""
    made = store.load("default")
    assert (made.memory_mib, made.disk_mib, made.cpus) == (1536, 25 * 1024, 1)


def test_json(invoke: Invoke, add: Add) -> None:
    add("a")
    add("b", state="Running")
    shown = invoke("set", "--json", "--cpus", "1", "a", "b")
    assert json.loads(shown.out) == [
        {"name": "a", "result": 'Machine "a": Processors changed now.'},
        {"name": "b", "result": 'Machine "b": Processors will change at the next start: machine restart b'},
    ]


def test_nothing_to_set(invoke: Invoke, add: Add) -> None:
    add("dev")
    shown = invoke("set", "dev")
    assert (shown.code, shown.out) == (2, "")
    assert "nothing to change" in shown.err
    assert "machine set --memory 4G default" in shown.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--disk", "10G"), 3, "a disk can't shrink: it has 19.5 GiB"),
        (("--memory", "much"), 2, "invalid size"),
        (("--memory", "0"), 2, "invalid size"),
        (("--cpus", "0"), 3, "a machine needs at least one CPU"),
    ],
)
def test_sizes_that_cant_be(invoke: Invoke, add: Add, words: tuple[str, ...], code: int, message: str) -> None:
    made = add("dev")
    shown = invoke("set", *words, "dev")
    assert (shown.code, shown.out) == (code, "")
    assert message in shown.err
    assert store.load("dev") == made


def test_one_that_fails_keeps_no_other(invoke: Invoke, add: Add) -> None:
    add("a", options={"fails": "resize"})
    add("b")
    shown = invoke("set", "--cpus", "1", "a", "b")
    assert (shown.code, shown.out) == (1, 'Machine "b": Processors changed now.\n')
    assert "Error: a: the fake fails at resize" in shown.err
    assert (store.load("a").cpus, store.load("b").cpus) == (2, 1)


def test_ports_of_containers_with_the_guests_network(invoke: Invoke, add: Add) -> None:
    add("dev", state="Running")
    assert store.load("dev").host_network_ports
    shown = invoke("set", "--no-host-network-ports", "dev")
    assert shown.out == 'Machine "dev": Ports of --network host are left out within a minute.\n'
    assert not store.load("dev").host_network_ports
    assert invoke("set", "--no-host-network-ports", "dev").out == 'Machine "dev" already has these settings.\n'
    shown = invoke("set", "--host-network-ports", "--cpus", "1", "dev")
    assert "Ports of --network host are forwarded within a minute." in shown.out
    assert store.load("dev").host_network_ports


# Settings.

ALL = (
    *("--engine-opt", "log-driver=local", "--engine-label", "a=1", "--engine-env", "A=1"),
    *("--engine-registry-mirror", "http://m", "--engine-insecure-registry", "r:1", "--engine-storage-driver", "vfs"),
    *("--host", "r.test=10.0.0.1", "--sysctl", "vm.swappiness=10"),
)
GONE = (
    *("--engine-opt-rm", "log-driver", "--engine-opt-rm", "storage-driver", "--engine-label-rm", "a"),
    *("--engine-env-rm", "A", "--engine-registry-mirror-rm", "http://m", "--engine-insecure-registry-rm", "r:1"),
    *("--host-rm", "r.test", "--sysctl-rm", "vm.swappiness"),
)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Machine, bool]]:
    """The settings that running machines got, and whether by force; they accept all of them."""
    found: list[tuple[Machine, bool]] = []

    def adjust(instance: Instance, target: Machine, *_: object, force: bool) -> reconfigure.Outcome:
        found.append((target, force))
        return RELOADED if instance.machine.engine != target.engine else reconfigure.Outcome.UNCHANGED

    monkeypatch.setattr(provision, "adjust", adjust)
    return found


def test_a_stopped_machine_takes_settings_at_its_next_start(invoke: Invoke, add: Add, taken: list[object]) -> None:
    made = add("dev")
    shown = invoke("set", *ALL, "dev")
    assert shown.out == 'Machine "dev": The settings take effect at the next start: machine start dev\n'
    assert taken == []
    kept = store.load("dev")
    assert kept.engine == Engine(
        ("log-driver=local", "storage-driver=vfs"), ("a=1",), ("A=1",), ("http://m",), ("r:1",)
    )
    assert (kept.hosts, kept.sysctls) == (("r.test=10.0.0.1",), ("vm.swappiness=10",))
    assert invoke("set", *ALL, "dev").out == 'Machine "dev" already has these settings.\n'
    assert invoke("set", *GONE, "dev").code == 0
    assert store.load("dev") == made


def test_a_running_machine_takes_settings_at_once(invoke: Invoke, add: Add, taken: list[tuple[Machine, bool]]) -> None:
    add("dev", state="Running")
    shown = invoke("set", *ALL, "--memory", "1G", "dev")
    assert shown.out == (
        'Machine "dev": Memory changed now. Host names and kernel settings changed now. Docker reloaded its settings.\n'
    )
    [(target, force)] = taken
    assert (target, force) == (store.load("dev"), False)
    invoke("set", "--force", "--engine-label-rm", "a", "dev")
    assert (taken[1][0].engine.labels, taken[1][1]) == ((), True)


def test_what_is_refused_is_not_kept(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add("dev", state="Running")

    def refuse(*_: object, **__: object) -> reconfigure.Outcome:
        raise EngineRefused("failed to start daemon: driver not supported: btrfs")

    monkeypatch.setattr(provision, "adjust", refuse)
    shown = invoke("set", "--engine-storage-driver", "btrfs", "dev")
    assert (shown.code, shown.out) == (1, "")
    assert "dockerd refuses its settings: failed to start daemon: driver not supported: btrfs" in shown.err
    assert store.load("dev") == made


@pytest.mark.parametrize("state", ["Saved", "Paused"])
def test_a_machine_that_was_halted_takes_none(invoke: Invoke, add: Add, taken: list[object], state: str) -> None:
    made = add("dev", state=state)
    shown = invoke("set", "--engine-label", "a=1", "dev")
    assert (shown.code, taken, store.load("dev")) == (1, [], made)
    assert f'the machine "dev" is {state.lower()}' in shown.err
    assert "Next: machine start dev" in shown.err


def test_a_daemon_of_which_only_the_url_is_known_takes_none(invoke: Invoke, add: Add) -> None:
    add("far", driver="none", options={"url": "tcp://127.0.0.1:1"})
    shown = invoke("set", "--engine-label", "a=1", "far")
    assert (shown.code, "only the URL of a Docker daemon" in shown.err) == (2, True)


def test_a_host_that_does_not_answer_takes_none(invoke: Invoke, add: Add) -> None:
    options = {"ip_address": "127.0.0.1", "ssh_port": 1}
    made = add("far", driver="generic", address=None, options=options)
    shown = invoke("set", "--engine-label", "a=1", "far")
    assert (shown.code, store.load("far")) == (1, made)
    assert 'the machine "far" is stopped' in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ("--engine-opt", "hosts=[]"),
        ("--engine-label", "provider=mine"),
        ("--engine-env", "A"),
        ("--host", "a=b"),
        ("--sysctl", "kernel.hostname=a"),
    ],
)
def test_settings_that_cant_be(invoke: Invoke, add: Add, words: tuple[str, ...]) -> None:
    made = add("dev")
    assert invoke("set", *words, "dev").code == 2
    assert store.load("dev") == made


def test_taking_away_what_is_not_there_is_said(invoke: Invoke, add: Add) -> None:
    add("dev")
    shown = invoke("set", "--engine-label-rm", "a", "dev")
    assert (shown.code, shown.out) == (0, 'Machine "dev" already has these settings.\n')
    assert 'there is no "a" to remove' in shown.err


def test_create_has_the_same_settings(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[Machine] = []
    monkeypatch.setattr(provision, "check", lambda instance, *_: settled.append(instance.machine))
    assert invoke("create", *ALL, "dev").code == 0
    made = store.load("dev")
    assert settled == [made]
    assert (made.hosts, made.sysctls) == (("r.test=10.0.0.1",), ("vm.swappiness=10",))
    assert made.engine.options == ("log-driver=local", "storage-driver=vfs")

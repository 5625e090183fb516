"""machine status, ip, url, inspect, version."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import docker_engine

from machine import __version__, registry
from machine.driver import Driver, State
from machine.errors import DriverFailed
from machine.spec import Address, Engine
from tests.fixture_types import Add, Invoke


def test_status_is_one_word(invoke: Invoke, add: Add) -> None:
    add(state="Running")
    add("web")
    assert invoke("status").out == "Running\n"
    assert invoke("status", "web").out == "Stopped\n"
    assert json.loads(invoke("status", "web", "--json").out) == {
        "name": "web",
        "state": "Stopped",
        "mounts": [],
        "warnings": [],
    }


def test_status_warns_on_stderr(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(state="Running")
    monkeypatch.setattr(registry.load("fake"), "warnings", lambda _: ["port tcp/80 is taken"])
    ended = invoke("status")
    assert (ended.code, ended.out, ended.err) == (0, "Running\n", "warning: port tcp/80 is taken\n")
    assert json.loads(invoke("status", "--json").out)["warnings"] == ["port tcp/80 is taken"]


def test_what_a_guest_wrote_doesnt_steer_the_terminal(
    invoke: Invoke, add: Add, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program chooses its name, and an engine the words of its errors."""

    def state(driver: Driver) -> State:
        if driver.machine.name == "gone":
            raise DriverFailed("Docker answers \x1b]0;title\x07", details="\x9b2J")
        return State.RUNNING

    add()
    add("gone")
    monkeypatch.setattr(registry.load("fake"), "state", state)
    line = "Out of memory: Killed process 7 (a\x1b[2Jb) total-vm:9kB, anon-rss:921600kB, file-rss:0kB\n"
    (store / "machines/default/console.log").write_text(line)
    for verb in (["status"], ["ls"], ["doctor"], ["status", "gone"]):
        ended = invoke(*verb)
        assert not set("\x1b\x9b\x07") & set(ended.err + ended.out), verb
    assert "its memory ran out: ab (900 MiB)" in invoke("status").err


def test_status_shows_what_the_guest_warns_of(invoke: Invoke, add: Add, store: Path) -> None:
    add(state="Running")
    console = store / "machines" / "default" / "console.log"
    console.write_text("machineos: [ 43.97] warning: boot.sh failed with exit code 3\n")
    ended = invoke("status")
    assert (ended.out, ended.err) == ("Running\n", "warning: boot.sh failed with exit code 3\n")


def test_status_and_ls_tell_that_memory_ran_out(invoke: Invoke, add: Add, store: Path) -> None:
    add(state="Running")
    add("web")
    line = "Out of memory: Killed process 7 (postgres) total-vm:9kB, anon-rss:921600kB, file-rss:0kB\n"
    for name in ("default", "web"):
        (store / "machines" / name / "console.log").write_text(line)
    told = "its memory ran out: postgres (900 MiB) was killed; give it more: machine set --memory SIZE default"
    assert invoke("status").err == f"warning: {told}\n"
    # That of a stopped machine is history.
    assert [row["warning"] for row in json.loads(invoke("ls", "--json").out)] == [told, None]


def test_status_has_a_timeout(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    answers = threading.Event()
    monkeypatch.setattr(registry.load("fake"), "state", lambda _: answers.wait(300))
    ended = invoke("status", "-t", "0.1")
    answers.set()
    assert (ended.code, ended.out) == (1, "")
    assert "timed out" in ended.err


def test_ip_and_url_of_stopped_machines_in_the_order_given(invoke: Invoke, add: Add) -> None:
    add()
    add("web", address=Address("::1", docker_port=4000))
    assert invoke("ip").out == "127.77.0.2\n"
    assert invoke("ip", "web", "default").out == "::1\n127.77.0.2\n"
    assert invoke("ip", "web", "web").out == "::1\n::1\n"
    assert json.loads(invoke("ip", "web", "default", "--json").out) == {"web": "::1", "default": "127.77.0.2"}
    assert invoke("url", "web").out == "tcp://[::1]:4000\n"
    assert json.loads(invoke("url", "--json").out) == {"name": "default", "url": "tcp://127.77.0.2:2375"}
    ended = invoke("ip", "default", "absent")
    assert (ended.code, ended.out) == (1, "")


def test_the_driver_is_asked_where_machine_json_has_no_address(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(address=None)
    monkeypatch.setattr(registry.load("fake"), "address", lambda _: Address("192.0.2.7"))
    assert invoke("ip").out == "192.0.2.7\n"
    assert invoke("url").out == "tcp://192.0.2.7:2375\n"


def test_inspect_has_docker_machines_keys(invoke: Invoke, add: Add, store: Path) -> None:
    add(
        engine=Engine(options=("storage-driver=overlay2",), labels=("a=b",)),
        address=Address("127.77.0.2", ssh_port=2222),
    )
    home = store / "machines/default"
    for form, printed in {
        "{{.Name}} {{.DriverName}} {{.State}}": "default fake Stopped",
        "{{.Driver.IPAddress}} {{.Driver.SSHPort}}": "127.77.0.2 2222",
        "{{.Driver.MachineName}} {{ .Driver.SSHUser }}": "default docker",
        "{{.Driver.SSHKeyPath}}": f"{home}/id_ed25519",
        "{{.Driver.CPU}} {{.Driver.Memory}} {{.Driver.DiskSize}}": "2 2048 20000",
        "{{.HostOptions.EngineOptions.StorageDriver}} {{.HostOptions.EngineOptions.TlsVerify}}": "overlay2 true",
        "{{json .HostOptions.EngineOptions.Labels}}": '["a=b"]',
        "{{.HostOptions.AuthOptions.StorePath}}": str(home),
        "{{.HostOptions.SwarmOptions.IsSwarm}}": "false",
        "{{.Machine.uuid}}|{{.Machine.memory_mib}}": "|2048",
    }.items():
        assert invoke("inspect", "--format", form).out == printed + "\n"
    whole = invoke("inspect")
    assert whole.lines[1] == '    "ConfigVersion": 3,'
    assert json.loads(whole.out) == json.loads(invoke("inspect", "-f", "{{json .}}").out)
    assert whole.out == invoke("inspect", "--json").out
    assert json.loads(whole.out)["Machine"] == json.loads((home / "machine.json").read_text())


def test_inspect_refuses_what_is_not_there(invoke: Invoke, add: Add) -> None:
    add()
    ended = invoke("inspect", "-f", "{{.Driver.Foo}}")
    assert (ended.code, ended.out) == (2, "")
    assert "the format has .Driver.Foo, but there is no Foo: there are IPAddress, " in ended.err


def test_inspect_of_a_machine_whose_driver_fails(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(address=None)

    def fail(_: object) -> None:
        raise DriverFailed("no")

    monkeypatch.setattr(registry.load("fake"), "address", fail)
    monkeypatch.setattr(registry.load("fake"), "state", fail)
    assert invoke("inspect", "-f", "{{.State}} [{{.Driver.IPAddress}}]").out == "Error []\n"


@pytest.fixture
def engine() -> Iterator[int]:
    """The port of something that answers as Docker does, without TLS."""
    with docker_engine() as port:
        yield port


def test_version(invoke: Invoke, add: Add, engine: int) -> None:
    add("web", state="Running", tls=False, address=Address("127.0.0.1", engine))
    add("off")
    assert invoke("version").out == f"machine version {__version__}\n"
    assert invoke("version", "web").out == "28.5.1\n"
    assert json.loads(invoke("version", "web", "--json").out) == {
        "machine": __version__,
        "name": "web",
        "docker": "28.5.1",
    }
    ended = invoke("version", "off")
    assert (ended.code, ended.err) == (1, 'Error: machine "off" is not running\nNext: machine start off\n')
    assert "v28.5.1" in invoke("ls").out

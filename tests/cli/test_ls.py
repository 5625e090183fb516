"""machine ls: lists, filters and formats; a dead machine delays no other."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from machine import registry, resources, store
from machine.cli import tables
from machine.docker import liveness
from machine.docker.api import Client, Silent
from machine.errors import DriverFailed
from machine.instance import Instance
from machine.spec import Address, Engine
from tests.fixture_types import Add, Invoke


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Docker answers "28.5.1" on every machine; the list fills with the names of those that were asked."""
    asked: list[str] = []

    def version(client: Client) -> str:
        asked.append(client.machine.name)
        return "28.5.1"

    monkeypatch.setattr("machine.docker.api.Client.version", version)
    return asked


def test_columns(invoke: Invoke, add: Add, docker: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    add("web10", memory_mib=512)
    add("web2", state="Running", cpus=4)
    add("a", state="Paused")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.3:2375")
    assert invoke("ls").lines == [
        "NAME    ACTIVE   DRIVER   STATE     URL                     MEMORY    CPUS   DOCKER    ERRORS",
        "a       -        fake     Paused    tcp://127.77.0.4:2375   2 GiB     2      Unknown",
        "web2    *        fake     Running   tcp://127.77.0.3:2375   2 GiB     4      v28.5.1",
        "web10   -        fake     Stopped   tcp://127.77.0.2:2375   512 MiB   2      Unknown",
    ]
    assert docker == ["web2"]


def test_no_machine(invoke: Invoke) -> None:
    ended = invoke("ls")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == ["NAME   ACTIVE   DRIVER   STATE   URL   MEMORY   CPUS   DOCKER   ERRORS"]
    assert invoke("ls", "-q").out == ""
    assert json.loads(invoke("ls", "--json").out) == []


def test_quiet_asks_nobody(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add("b")
    add("a", state="Running")
    monkeypatch.setattr(Instance, "driver", None)
    assert invoke("ls", "-q").out == "a\nb\n"
    assert invoke("ls", "-q", "--filter", "name=a").out == "a\n"


def test_json(invoke: Invoke, add: Add, docker: list[str]) -> None:
    add("web", state="Running")
    assert json.loads(invoke("ls", "--json").out) == [
        {
            "name": "web",
            "active": False,
            "driver": "fake",
            "state": "Running",
            "url": "tcp://127.77.0.2:2375",
            "memory_mib": 2048,
            "cpus": 2,
            "arch": resources.architecture(),
            "docker": "28.5.1",
            "error": None,
            "warning": None,
        }
    ]


def test_a_damaged_machine_is_shown_with_the_reason(invoke: Invoke, add: Add, store: Path) -> None:
    add("good")
    bad = store / "machines/bad"
    bad.mkdir()
    (bad / "machine.json").write_text('{"format": 1,')
    _, first, second = invoke("ls").lines
    assert first.split()[:4] == ["bad", "-", "not", "found"]
    assert f"Error Unknown {bad}/machine.json is damaged: " in " ".join(first.split())
    assert second.split()[:4] == ["good", "-", "fake", "Stopped"]
    assert invoke("ls", "-q", "--filter", "state=error").out == "bad\n"
    assert invoke("ls", "-q", "--filter", "driver=fake").out == "good\n"


def test_a_machine_of_a_driver_that_is_gone(invoke: Invoke, add: Add) -> None:
    add("old", driver="gone")
    add("good")
    assert [line.split()[3] for line in invoke("ls").lines[1:]] == ["Stopped", "Error"]
    assert 'there is no driver "gone"' in invoke("ls").out


def test_one_that_is_being_made_is_not_shown(invoke: Invoke, add: Add, store: Path) -> None:
    from filelock import FileLock

    add("good")
    making = store / "machines/making"
    making.mkdir()
    (making / "creating.json").write_text("{}")
    with FileLock(making / "lock"):
        assert invoke("ls", "-q").out == "good\n"


def test_one_that_is_being_removed_is_not_shown(
    invoke: Invoke, add: Add, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("good")
    add("going")
    add("gone")
    (store / "machines/gone").rename(store / "machines/.trash-gone-0123abcd")
    assert invoke("ls", "-q").out == "going\ngood\n"
    answer = registry.load("fake").state

    def state(self: Any) -> Any:
        if self.machine.name == "going":
            (store / "machines/going").rename(store / "machines/.trash-going-0123abcd")
            raise DriverFailed("there is no such virtual machine")
        return answer(self)

    monkeypatch.setattr(registry.load("fake"), "state", state)
    assert [row["name"] for row in json.loads(invoke("ls", "--json").out)] == ["good"]


def test_a_dead_machine_delays_no_other(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        add(f"m{number}")
    answer = registry.load("fake").state
    over = threading.Event()

    def state(self: Any) -> Any:
        if int(self.machine.name[1:]) % 2:
            over.wait(300)
        return answer(self)

    monkeypatch.setattr(registry.load("fake"), "state", state)
    began = time.monotonic()
    rows = json.loads(invoke("ls", "--json", "-t", "2").out)
    # 20 of 40 hang, 16 are asked at a time: two rounds, and not twenty.
    assert time.monotonic() - began < 20
    over.set()
    assert [row["state"] for row in rows] == ["Stopped", "Timeout"] * 20
    assert {row["error"] for row in rows} == {None, "no answer within 2 s"}


def test_a_docker_that_hangs_leaves_the_machine_running(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("deaf", state="Running")
    answers = threading.Event()
    monkeypatch.setattr("machine.docker.api.Client.version", lambda _: answers.wait(300))
    (row,) = json.loads(invoke("ls", "--json", "-t", "2").out)
    answers.set()
    assert (row["state"], row["docker"], row["error"]) == ("Running", None, "Docker doesn't answer (asked 2 s)")


def test_a_docker_that_is_silent_is_told_without_words_of_python(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(client: Client) -> str:
        raise Silent(client.timeout, f" on {client.address.url}")

    add("deaf", state="Running")
    monkeypatch.setattr("machine.docker.api.Client.version", version)
    (row,) = json.loads(invoke("ls", "--json", "-t", "20").out)
    assert re.fullmatch(r"Docker doesn't answer \(asked 1[0-9.]+ s\)", row["error"])


def test_what_its_helper_knows_is_asked_for_only_if_it_must_be_fresh(
    invoke: Invoke, add: Add, docker: list[str]
) -> None:
    add("known", state="Running")
    add("new", state="Running")
    add("off")
    for name in ("known", "off"):
        liveness.note(store.folder_of(name), "29.0.0")
    rows = json.loads(invoke("ls", "--json").out)
    assert [row["docker"] for row in rows] == ["29.0.0", "28.5.1", None]
    assert docker == ["new"]
    rows = json.loads(invoke("ls", "--json", "--fresh").out)
    assert [row["docker"] for row in rows] == ["28.5.1", "28.5.1", None]


def test_on_a_terminal_a_line_appears_when_its_machine_has_answered(
    invoke: Invoke, add: Add, docker: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        add(name, state="Running")
    seen = threading.Event()
    answer = registry.load("fake").state

    def state(self: Any) -> Any:
        if self.machine.name == "a":
            assert seen.wait(120)
        return answer(self)

    show = tables.print_rows

    def shown(rows: Iterable[list[str]], widths: list[int]) -> None:
        rows = list(rows)
        show(rows, widths)
        if {row[0] for row in rows} & {"c"}:
            seen.set()

    monkeypatch.setattr(registry.load("fake"), "state", state)
    monkeypatch.setattr("machine.cli.ls.print_rows", shown)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = invoke("ls", "-t", "100").lines
    assert lines[0].split()[0] == "NAME"
    assert [line.split()[0] for line in lines[1:]] in (["b", "c", "a"], ["c", "b", "a"])
    assert len({line.index("fake") for line in lines[1:]} | {lines[0].index("DRIVER")}) == 1


@pytest.mark.parametrize("error", [DriverFailed("no\nanswer"), ZeroDivisionError("no answer")])
def test_a_driver_that_fails(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    add("good", state="Stopped")

    def state(_: object) -> None:
        raise error

    monkeypatch.setattr(registry.load("fake"), "state", state)
    ended = invoke("ls")
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines[1].split()[3] == "Error"
    assert ended.lines[1].endswith("no answer")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["driver=FAKE"], "a b c"),
        (["driver=qemu"], ""),
        (["state=running"], "a"),
        (["state=running", "state=stopped"], "a c"),
        (["name=^[ab]$"], "a b"),
        (["name=b", "name=c", "state=paused"], "b"),
        (["label=tier"], "a c"),
        (["label=tier=FRONT"], "a"),
        (["label=tier=front", "label=tier=back"], "a c"),
        (["label=provider=fake"], "a b c"),
        (["label=absent"], ""),
    ],
)
def test_filters(invoke: Invoke, add: Add, filters: list[str], found: str) -> None:
    add("a", state="Running", engine=Engine(labels=("tier=front",)))
    add("b", state="Paused")
    add("c", engine=Engine(labels=("tier=back",)))
    words = [word for text in filters for word in ("--filter", text)]
    assert invoke("ls", "-q", *words).out.split() == found.split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter", "x"], 'Unsupported filter syntax: "x"'),
        (["--filter", "foo=x"], "Unsupported filter key 'foo'"),
        (["--filter", "name=("], 'invalid regular expression "("'),
        (["--format", "{{.Foo}}"], "there is no Foo: there are Name, Active"),
        (["--format", "{{call .Name}}x"], "{{call .Name}}, which machine doesn't know"),
        (["--format", "{{if .Name}}x"], "{{if .Name}} without {{end}}"),
        (
            ["--format", "{{range .EngineOptions.Foo}}x{{end}}"],
            "the format has .EngineOptions.Foo, but there is no Foo",
        ),
        (["-q", "--json"], "choose one of"),
    ],
)
def test_usage(invoke: Invoke, words: list[str], message: str) -> None:
    ended = invoke("ls", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("{{.Name}}", "a\nweb\n"),
        ("{{.Name}}\\t{{.State}}", "a\tStopped\nweb\tRunning\n"),
        ("{{.Name}}: {{.ActiveHost}} {{.DockerVersion}}", "a: false Unknown\nweb: false v28.5.1\n"),
        ("{{.EngineOptions.Labels}}", "[x=y]\n[]\n"),
        ("{{json .Name}},{{.Swarm}}", '"a",\n"web",\n'),
        (
            "table {{.Name}}\\t{{.DriverName}}\\t{{.Memory}}",
            "NAME   DRIVER   MEMORY\na      fake     2 GiB\nweb    fake     2 GiB\n",
        ),
    ],
)
def test_format(invoke: Invoke, add: Add, docker: list[str], form: str, printed: str) -> None:
    add("a", engine=Engine(labels=("x=y",)))
    add("web", state="Running")
    assert invoke("ls", "--format", form).out == printed


def test_the_driver_is_asked_where_machine_json_has_no_address(
    invoke: Invoke, add: Add, docker: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("nat", address=None, state="Running")
    monkeypatch.setattr(registry.load("fake"), "address", lambda _: Address("192.0.2.7"))
    assert json.loads(invoke("ls", "--json").out)[0]["url"] == "tcp://192.0.2.7:2375"

"""machine ssh: whose options are whose."""

from __future__ import annotations

from typing import Any

import pytest

from machine import ssh
from machine.cli.ssh import split
from tests.fixture_types import Add, Invoke


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Takes the place of a session, which ends with 42; what it was called with is in the list."""
    calls: list[Any] = []

    def interactive(
        folder: Any, address: Any, user: str, command: Any = (), *, tty: Any = None, extra: Any = ()
    ) -> int:
        calls.append((folder.name, address.host, user, list(extra), list(command)))
        return 42

    monkeypatch.setattr(ssh, "interactive", interactive)
    return calls


@pytest.mark.parametrize(
    ("words", "name", "extra", "command"),
    [
        ([], "default", [], []),
        (["web"], "web", [], []),
        (["web", "ls", "-la", "--", "x"], "web", [], ["ls", "-la", "--", "x"]),
        (["web", "--", "ls", "-la"], "web", [], ["ls", "-la"]),
        (["web", "--", "-x"], "web", [], ["-x"]),
        (["--", "web", "-h"], "default", [], ["web", "-h"]),
        (["web", "-C", "echo", "-n"], "web", ["-C"], ["echo", "-n"]),
        (["web", "-N", "-L", "1:a:2"], "web", ["-N", "-L", "1:a:2"], []),
    ],
)
def test_words(
    invoke: Invoke, add: Add, session: list[Any], words: list[str], name: str, extra: list[str], command: list[str]
) -> None:
    add(state="Running")
    add("web", state="Running")
    address = {"default": "127.77.0.2", "web": "127.77.0.3"}[name]
    assert invoke("ssh", *words).code == 42
    assert session == [(name, address, "docker", extra, command)]


@pytest.mark.parametrize(
    ("words", "options", "command"),
    [
        ("-vL 1:a:2 id", "-vL 1:a:2", "id"),
        ("-L1:a:2 id", "-L1:a:2", "id"),
        ("-o A=b -i key id -i", "-o A=b -i key", "id -i"),
        ("-tt top", "-tt", "top"),
        ("-t -- -x", "-t", "-x"),
        ("-L", "-L", ""),
        ("- x", "", "- x"),
    ],
)
def test_split(words: str, options: str, command: str) -> None:
    assert split(words.split()) == (options.split(), command.split())


def test_help_is_ours(invoke: Invoke) -> None:
    for option in ("-h", "--help"):
        assert "machine ssh default uptime" in invoke("ssh", option).out


def test_an_option_before_the_name(invoke: Invoke, add: Add, session: list[Any]) -> None:
    add(state="Running")
    ended = invoke("ssh", "-A", "default")
    assert ended.code == 2
    assert "Next: machine ssh default -A" in ended.err
    assert session == []


def test_a_command_without_a_name(invoke: Invoke, add: Add, session: list[Any]) -> None:
    add(state="Running")
    ended = invoke("ssh", "ls", "-la", "my dir")
    assert (ended.code, session) == (1, [])
    assert 'Docker machine "ls" does not exist' in ended.err
    assert "machine ssh default ls -la 'my dir'" in ended.err


@pytest.mark.parametrize("state", ["Stopped", "Paused"])
def test_a_machine_that_does_not_run(invoke: Invoke, add: Add, session: list[Any], state: str) -> None:
    add(state=state)
    ended = invoke("ssh", "default", "true")
    assert (ended.code, ended.err) == (1, 'Error: machine "default" is not running\nNext: machine start default\n')
    assert session == []
    assert invoke("ssh", "absent").code == 1

"""The verbs of prompts are answered with and without click: nobody can tell which it was but by the time."""

from __future__ import annotations

import pytest

from machine import cli, store
from machine.cli import command_line, prompt
from machine.cli.verbs import PROMPTS
from tests.fixture_types import Add, Invoke

ADDRESS = "tcp://127.77.0.2:2375"


@pytest.mark.parametrize("running", [ADDRESS, "tcp://127.77.0.3:2375", "tcp://192.0.2.1:2375", ""])
@pytest.mark.parametrize(
    "words",
    [
        "active",
        "active dev",
        "active --json",
        "env",
        "env dev",
        "env dev web",
        "env nobody",
        "env -u",
        "env --help",
        "env --shell fish dev",
        "env --json dev",
        "env --no-such dev",
        "env .dev",
        "ip",
        "ip dev web dev",
        "ip dev nobody",
        "ip -- dev",
        "ip --json web",
        "ip damaged",
        "url",
        "url web",
        "url web dev",
        "url nobody",
        "url -h",
    ],
)
def test_the_answers_are_the_same(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch, words: str, running: str
) -> None:
    add("dev", state="Running")
    for name in ("web", "default", "damaged"):
        add(name)
    store.folder_of("damaged").config.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("DOCKER_HOST", running)
    quick = invoke(*words.split())
    monkeypatch.setattr(cli, "PROMPTS", {})
    assert invoke(*words.split()) == quick


@pytest.mark.parametrize("verb", PROMPTS)
def test_names_alone_need_no_click(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    add("default", state="Running")
    monkeypatch.setenv("DOCKER_HOST", ADDRESS)
    monkeypatch.setattr(command_line, "run", lambda: pytest.fail("click was asked"))
    assert invoke(verb).code == 0


def test_odd_words_are_left_to_click() -> None:
    for word in ("", "-", "--", "-x", "a b", "a*", "~", "\udc80", "ü"):
        assert not prompt.answered(["ip", word]), word

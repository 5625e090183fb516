"""Errors for programs: with --json an error is an object on stderr, whatever went wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machine.cli import VERBS
from tests.fixture_types import Invoke


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["url", "absent", "--json"], 1, 'Docker machine "absent" does not exist'),
        (["url", "--json"], 2, 'No machine name(s) specified and no "default" machine exists'),
        (["ls", "--json", "--bogus"], 2, "--bogus"),
        (["bogus", "--json"], 2, 'there is no verb "bogus"'),
    ],
)
def test_an_error_is_an_object(invoke: Invoke, words: list[str], code: int, error: str) -> None:
    ended = invoke(*words)
    found = json.loads(ended.err)
    assert (ended.code, ended.out) == (code, "")
    assert found["code"] == code
    assert error in found["error"]
    assert set(found) == {"machine", "error", "details", "hint", "code"}


def test_a_word_of_a_command_is_no_option_of_ours(invoke: Invoke) -> None:
    ended = invoke("ssh", "absent", "kubectl", "--json")
    assert ended.err.startswith("Error: ")


def test_the_verbs_of_life_print_what_came_of_it(invoke: Invoke, vms: Any) -> None:
    invoke("create", "-q", "a", "b")
    assert json.loads(invoke("stop", "a", "--json").out) == [{"name": "a", "result": 'Machine "a" was stopped.'}]
    ended = invoke("stop", "b", "a", "--json")
    assert [one["name"] for one in json.loads(ended.out)] == ["b", "a"]
    assert ended.err == ""
    (vms / "b").unlink()
    ended = invoke("start", "a", "b", "--json")
    assert [one["name"] for one in json.loads(ended.out)] == ["a"]
    assert json.loads(ended.err)["machine"] == "b"
    assert json.loads(invoke("rm", "-y", "a", "b", "--json").out)[1] == {
        "name": "b",
        "result": "Successfully removed b",
    }
    assert "result" not in invoke("create", "-q", "c").out


# Verbs that print nothing of their own, or what isn't ours to form: a session, a console, a script, a text to read.
PLAIN = {"completion", "help", "image", "iso", "logs", "mount", "network", "scp", "snapshot", "ssh", "template"} | {
    "cluster",
    "init",
    "schema",
}


@pytest.mark.parametrize("verb", sorted(set(VERBS) - PLAIN))
def test_each_verb_that_prints_has_json(invoke: Invoke, verb: str) -> None:
    assert "--json" in invoke("help", verb).out

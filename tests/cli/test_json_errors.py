"""Errors for programs: with --json an error is an object on stderr, whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Invoke = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["url", "absent", "--json"], 1, 'Docker machine "absent" does not exist'),
        (["url", "--json"], 2, 'no machine name given, and no "default" machine exists'),
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

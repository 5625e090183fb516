"""Wrong usage: click's errors have the words and the form of all others."""

from __future__ import annotations

import json

import pytest

from tests.fixture_types import Invoke, Outcome


@pytest.mark.parametrize(
    ("words", "sentence", "command"),
    [
        ("crate", 'there is no verb "crate"; did you mean "create"?', "machine"),
        ("xyzzy", 'there is no verb "xyzzy"', "machine"),
        ("iso biuld", 'there is no verb "iso biuld"; did you mean "build"?', "machine iso"),
        ("create --memroy 2G", 'there is no option "--memroy"; did you mean "--memory"?', "machine create"),
        ("ls --no-such", 'there is no option "--no-such"', "machine ls"),
        ("-D", "a verb is required", "machine"),
        ("ls --timeout", "--timeout needs a value", "machine ls"),
        ("ls --json=x", "--json takes no value", "machine ls"),
        ("snapshot create", "NAME is required", "machine snapshot create"),
        ("snapshot create dev", "SNAPSHOT is required", "machine snapshot create"),
        ("scp a", "[[USER@]MACHINE:]PATH is required", "machine scp"),
        ("env a b", 'unexpected argument "b"', "machine env"),
        ("completion tcsh", 'SHELL: "tcsh" is not one of "bash", "zsh", "fish", "powershell"', "machine completion"),
        ("create -m lots", '--memory: invalid size "lots": use MiB or a unit, for example 8G', "machine create"),
        ("set --cpus two", '--cpus: invalid number "two": give a whole number, for example 4', "machine set"),
        ("logs -n -3", '--tail: invalid number "-3": give 0 or more', "machine logs"),
        (
            "stop --timeout soon",
            '--timeout: invalid time "soon": give seconds, 1 or more, for example 60',
            "machine stop",
        ),
        (
            "stop --timeout inf",
            '--timeout: invalid time "inf": give seconds, 1 or more, for example 60',
            "machine stop",
        ),
        ("ls -t 0", '--timeout: invalid time "0": give seconds, 0.1 or more, for example 60', "machine ls"),
    ],
)
def test_the_sentence_and_the_command(invoke: Invoke, words: str, sentence: str, command: str) -> None:
    assert invoke(*words.split(" ")) == Outcome(2, "", f"Error: {sentence}\nNext: {command} --help\n")
    assert invoke(*command.split(" ")[1:], "--help").code == 0


def test_as_json(invoke: Invoke) -> None:
    shown = invoke("ls", "--json", "--jsno")
    assert json.loads(shown.err) == {
        "machine": "",
        "error": 'there is no option "--jsno"; did you mean "--json"?',
        "details": "",
        "hint": "machine ls --help",
        "code": 2,
    }

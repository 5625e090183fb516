"""machine help, and that the examples are right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import click
import pytest

from machine.cli import VERBS, machine
from machine.cli.examples import EXAMPLES

Invoke = Callable[..., Any]


def test_help_of_a_verb(invoke: Invoke) -> None:
    printed = invoke("help", "scp").out
    assert printed.startswith("Usage: machine scp [OPTIONS]")
    assert "  # Copy from one machine to another.\n  machine scp one:a.tar two:\n" in printed
    assert "--if-missing" in invoke("help", "iso", "build").out
    assert "Verbs:" in invoke("help").out
    assert (invoke("help", "bogus").code, invoke("help", "ls", "x").code) == (2, 2)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_has_a_help_and_examples(invoke: Invoke, verb: str) -> None:
    assert invoke("help", verb).code == 0
    assert verb in EXAMPLES, f"give {verb} examples: machine/cli/examples.py"


@pytest.mark.parametrize("line", [line for verb, examples in EXAMPLES.items() if verb in VERBS for line, _ in examples])
def test_each_example_is_understood(store: Any, line: str) -> None:
    """All its words are parsed, as far as that is possible without running it."""
    found = re.search(r"machine [^|>)\"]*", line)
    assert found
    words = shlex.split(found[0])[1:]
    root = click.Context(machine, info_name="machine")
    command: click.Command = machine
    verb = ""
    while isinstance(command, click.Group):
        verb = words.pop(0)
        found_command = command.get_command(root, verb)
        assert found_command, verb
        command = found_command
    command.make_context(verb, words, parent=root)

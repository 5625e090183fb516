"""machine help, and that the examples are right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from machine.cli import usage
from machine.cli.command_line import machine
from machine.cli.examples import EXAMPLES
from machine.cli.verbs import GROUPS, VERBS
from tests.fixture_types import Invoke


def test_help_of_a_verb(invoke: Invoke) -> None:
    printed = invoke("help", "scp").out
    assert printed.startswith("Usage: machine scp [OPTIONS]")
    assert "  # Copy from one machine to another.\n  machine scp one:a.tar two:\n" in printed
    assert "--if-missing" in invoke("help", "iso", "build").out
    assert "Make and remove:" in invoke("help").out
    assert (invoke("help", "bogus").code, invoke("help", "ls", "x").code) == (2, 2)


def test_the_first_steps(invoke: Invoke) -> None:
    shown = invoke()
    assert (shown.code, shown.err) == (0, "")
    commands = [line for line in shown.lines if line.startswith("  ")]
    assert next(line.split()[:2] for line in commands) == ["machine", "create"]
    assert len(commands) == 5
    assert shown.out.endswith("\n\nAll verbs and options: machine --help\n")
    assert "machine env | Invoke-Expression" in usage.first_steps("win32")


def test_verbs_stand_in_groups(invoke: Invoke) -> None:
    printed = invoke("--help").out
    groups = re.findall(r"^([A-Z].*):\n((?:  .*\n)+)", printed, re.MULTILINE)[1:]
    assert [heading for heading, _ in groups] == list(GROUPS)
    for (heading, text), verbs in zip(groups, GROUPS.values(), strict=True):
        assert re.findall(r"^  ([a-z-]+) ", text, re.MULTILINE) == list(verbs), heading
    assert sum(map(len, GROUPS.values())) == len(VERBS)


def commands(command: click.Command, words: str = "machine") -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        root = click.Context(command, **machine.context_settings)
        for name in command.list_commands(root):
            nested = command.get_command(root, name)
            assert nested
            yield from commands(nested, f"{words} {name}")


@pytest.mark.parametrize(("words", "command"), [pytest.param(*found, id=found[0]) for found in commands(machine)])
def test_how_options_are_explained(store: Any, words: str, command: click.Command) -> None:
    """In sentences, with the variable in brackets of one shape, and in words that aren't a programmer's."""
    ctx = click.Context(command, info_name=words, **machine.context_settings)
    for option in command.get_params(ctx):
        if isinstance(option, click.Option) and not option.hidden:
            record = option.get_help_record(ctx)
            assert record
            spec, text = record
            assert re.search(r"[.)]\s*(\[(default|env):\s[^\]]+\]\s*)*$", text), f"{spec}: {text}"
            assert not re.search("TEXT|INTEGER|FLOAT|RANGE", spec), spec
            if option.envvar:
                assert f"[env: {option.envvar}]" in text.replace("\N{NO-BREAK SPACE}", " "), spec
    assert "\N{NO-BREAK SPACE}" not in command.get_help(ctx)


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
    root = click.Context(machine, info_name="machine", **machine.context_settings)
    command: click.Command = machine
    verb = ""
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        verb = words.pop(0)
        found_command = command.get_command(root, verb)
        assert found_command, verb
        command = found_command
    command.make_context(verb, words, parent=root)

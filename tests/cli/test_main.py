import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from fake_fixtures import ended

from machine import __version__, cli, run, store
from machine.cli import command_line
from machine.cli.report import labelled
from tests.fixture_types import Add, Begin, Invoke, Outcome

ROOT = Path(__file__).parents[2]


def test_help_lists_every_verb(invoke: Invoke) -> None:
    for words in (["--help"], ["-h"]):
        shown = invoke(*words)
        text = shown.out
        assert all(re.search(rf"^  {verb} ", text, re.MULTILINE) for verb in cli.VERBS), words
        assert shown.code == 0


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help_of_its_own(invoke: Invoke, verb: str) -> None:
    shown = invoke(verb, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: machine {verb}")


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version").out == invoke("-v").out == f"machine version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crate"], 'there is no verb "crate"; did you mean "create"?'),
        (["xyzzy"], 'there is no verb "xyzzy"'),
        (["../x"], 'there is no verb "../x"'),
        ([""], 'there is no verb ""'),
        (["--no-such"], "--no-such"),
        (["ls", "--no-such"], "--no-such"),
        (["stop", "--timeout", "soon", "dev"], "soon"),
        (["stop", "--timeout", "0", "dev"], 'invalid time "0"'),
        (["iso", "melt"], "melt"),
    ],
)
def test_words_that_make_no_sense(invoke: Invoke, words: list[str], message: str) -> None:
    shown = invoke(*words)
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_the_store_is_chosen_by_an_option(invoke: Invoke, add: Add, tmp_path: Path) -> None:
    add("dev")
    assert invoke("ls", "-q").out == "dev\n"
    assert invoke("--storage-path", str(tmp_path / "other"), "ls", "-q").out == ""


def test_a_store_that_is_a_file(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words in (["ls"], ["create", "--driver", "fake", "dev"]):
        shown = invoke("--storage-path", str(tmp_path / "file"), *words)
        assert shown.code == (3 if "create" in words else 1)
        assert "Traceback" not in shown.err
        assert "Not a directory" in shown.err


def test_what_is_left_of_a_killed_create_is_swept_and_told(invoke: Invoke, vms: Path) -> None:
    folder = store.folder_of("dev")
    folder.path.mkdir(parents=True)
    folder.creating.touch()
    # What a shell's profile or prompt calls, and who only reads about a verb, removes nothing.
    for words in (("env", "x"), ("active",), ("completion", "bash"), ("help", "rm"), ("rm", "--help"), ("ls", "-h")):
        assert "left behind" not in invoke(*words).err
        assert folder.path.exists()
    shown = invoke("ls")
    assert shown.err == 'Removed what an interrupted "machine create dev" had left behind.\n'
    assert not folder.path.exists()


def test_leftovers_that_cant_be_removed_keep_no_verb_from_working(invoke: Invoke, add: Add, vms: Path) -> None:
    add("web", driver="fake")
    add("dev", driver="gone")
    store.folder_of("dev").config.rename(store.folder_of("dev").creating)
    shown = invoke("ls", "-q")
    assert (shown.code, shown.out) == (0, "web\n")
    assert shown.err == (
        'warning: the leftovers of the machine dev can\'t be removed: there is no driver "gone"\n'
        "Next: machine rm -f dev\n"
    )
    assert invoke("rm", "-f", "dev").code == 0
    assert invoke("ls", "-q") == Outcome(0, "web\n", "")


def test_debug_shows_commands_and_tracebacks(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_DEBUG", "")
    monkeypatch.setattr(run, "debug", False)
    assert "Traceback" not in invoke("stop", "dev").err
    shown = invoke("--debug", "stop", "dev")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert 'Error: Docker machine "dev" does not exist\n' in shown.err


def test_debug_from_the_environment(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, shows in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("MACHINE_DEBUG", value)
        code, _, err = ended(begin("stop", "dev"))
        assert code == 1
        assert ("Traceback" in err) is shows, value


def test_a_reader_that_has_seen_enough(begin: Begin, add: Add) -> None:
    for number in range(3):
        add(f"dev{number}")
    for words in (["ls"], ["--help"], ["ls", "--json"], ["iso", "ls"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = begin(*words, stdout=writer)
        os.close(writer)
        assert ended(process)[::2] == (0, ""), words


def test_a_long_answer_to_a_reader_that_has_seen_enough(begin: Begin, add: Add) -> None:
    for number in range(300):
        add(f"a-name-that-takes-its-place-{number}")
    reader, writer = os.pipe()
    process = begin("ls", "-q", stdout=writer)
    os.close(writer)
    os.close(reader)
    _, _, err = ended(process)
    assert err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cant_be_written(begin: Begin, add: Add) -> None:
    add("dev")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        code, _, err = ended(begin("ls", stdout=full))
    assert (code, err) == (1, "Error: No space left on device\n")


def test_without_a_stdout_at_all(begin: Begin, add: Add) -> None:
    add("dev")
    code, _, err = ended(begin("ls", preexec_fn=lambda: os.close(1)))
    assert (code, err) == (0, "")


def test_the_module_is_the_command(begin: Begin) -> None:
    assert ended(begin("--version")) == (0, f"machine version {__version__}\n", "")
    done = subprocess.run(
        [Path(sys.executable).with_name("machine"), "--version"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == f"machine version {__version__}\n"


def hints() -> list[str]:
    """Every text of the source that tells the user to type a command of ours."""
    found = []
    for folder in ("machine", "drivers", "isos"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    found += [
                        part.value
                        for part in ast.walk(node.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    ]
    return found


def written() -> list[str]:
    """Every hint of an error in the source, with X for each inserted value."""
    found = []
    for folder in ("machine", "drivers", "isos"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                value = node.value if isinstance(node, ast.keyword) and node.arg == "hint" else None
                if isinstance(node, ast.Assign) and re.search("hint", ast.unparse(node.targets[0]), re.IGNORECASE):
                    value = node.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.append(value.value)
                if isinstance(value, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "X" for part in value.values]
                    found.append("".join(map(str, parts)))
    return found


def test_what_follows_next_can_be_typed() -> None:
    """A command and nothing else: no reason before it, and no second one in words behind it."""
    labels = [labelled(hint).partition(": ") for hint in written() if hint]
    commands = [text for label, _, text in labels if label == "Next"]
    assert len(commands) > 100
    for command in commands:
        assert shlex.split(command)
        assert not re.search(r"[,;:] |\.\.\.|…| or ", command), command
    for advice in (text for label, _, text in labels if label == "Hint"):
        assert not re.match(r"(sudo|machine|docker) ", advice), advice


# Named by hints, and still to be written.
COMING = {"export"}


def test_each_hint_names_verbs_and_options_that_there_are() -> None:
    named = [verb for hint in hints() for verb in re.findall(r"(?:^|[:,&] |or )machine ([a-z]+(?:-[a-z]+)*)", hint)]
    assert len(named) > 20
    assert set(named) - cli.VERBS.keys() - COMING == set()


def test_every_verb_is_a_command() -> None:
    for verb, (module, text) in cli.VERBS.items():
        command = getattr(importlib.import_module(f"machine.cli.{module}"), command_line._function(verb))
        assert isinstance(command, click.Command)
        assert text.endswith(".")


def test_an_error_is_an_object_with_json(invoke: Invoke) -> None:
    shown = invoke("create", "--json", "../x")
    assert (shown.code, shown.out) == (2, "")
    error = json.loads(shown.err)
    assert error["error"].startswith('invalid name "../x"')
    assert error["code"] == 2
    assert error["hint"]

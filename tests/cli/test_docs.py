"""docs/docker-machine.md says of each verb and option what it is here, and names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from machine.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "docker-machine.md"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_each_row_has_one_of_four_answers_and_a_test() -> None:
    for row in rows():
        if len(row) < 4 or row[1] == "here":
            continue
        assert row[1] in {"same", "better", "differs", "left out"}, row
        assert row[1] == "left out" or row[3], row
        assert row[1] == "same" or row[2], row


def test_the_tests_are_there() -> None:
    named = re.findall(r"([\w/]+\.py): (test_\w+) \|", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 80
    for file, test in named:
        folder = ROOT / "tests" if "/" in file else ROOT / "tests" / "cli"
        assert f"def {test}(" in (folder / file).read_text(encoding="utf-8"), f"{file}: {test}"


def test_each_verb_of_docker_machine_is_a_verb_here() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Verbs")[2].partition("## `create`")[0]
    theirs = set(re.findall(r"^\| `([a-z-]+)", section, re.MULTILINE))
    assert len(theirs) == 22
    assert theirs <= VERBS.keys()
    new = set(re.findall(r"`([a-z-]+)`", section.partition("New: ")[2]))
    assert theirs | new == VERBS.keys()

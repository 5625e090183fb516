"""The documents: links lead somewhere, the index and docs/internals.md are complete, docs/docker-machine.md is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest

from machine.cli import VERBS
from machine.cli.command_line import machine

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = DOCS / "docker-machine.md"
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS.rglob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(ROOT / ".github").rglob("*.md"),
]
# A name of a file, as the sources write it.
FILE = re.compile(r'f?"(\.?[a-z][a-z0-9_-]*\.(?:json|sock|log|lock|pem|qcow2|vdi|img|iso|pid|xml|toml))"')
# Of an ISO, of an archive that export writes, of our package, and of a line to type: not of the store.
ELSEWHERE = {"bundle.pem", "catalog.toml", "initrd.img", "machine.schema.json", "schema.json", "sums.json"}


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


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation left out, dashes for blanks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere_inside_of_the_project(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_sends_its_reader_out_of_the_project(page: Path) -> None:
    for path in re.findall(r"(?<![\w/.])((?:\.\./)+[\w./-]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / path).resolve().is_relative_to(ROOT), path


def commands(page: Path) -> Iterator[str]:
    """The command lines of machine in a page's blocks of code, up to what the shell takes out of them."""
    block = re.compile(r"^```[^`]*^```|^(?: {4}.*\n)+", re.MULTILINE)
    for line in "\n".join(block.findall(page.read_text(encoding="utf-8"))).splitlines():
        typed = re.sub(r"(^|\s)#\s.*", "", line)
        for verb, rest in re.findall(r"(?:^ *|[$(;=\w] *)machine ([a-z-]+)([^|<>();\"#…]*)", typed):
            if verb in VERBS or line.strip().startswith("machine "):
                yield f"{verb}{rest}".strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_line_is_understood(store: Any, page: Path) -> None:
    """All its words are parsed, as far as that is possible without running it."""
    if page.name == "verbs.md":
        return  # made from the program, and its usages are no command lines
    for line in commands(page):
        context = click.Context(machine, info_name="machine", **machine.context_settings)
        command: click.Command | None = machine
        words = shlex.split(line)
        while isinstance(command, click.Group):
            command = command.get_command(context, words.pop(0))
        assert command, line
        command.make_context(line, [word for word in words if word != "\\"], parent=context)


def test_command_lines_are_found() -> None:
    found = [line for page in PAGES if page.name != "verbs.md" for line in commands(page)]
    assert {"create default", "env dev", "docker-context --use dev", "ls -q", "ip dev"} <= set(found)
    assert len(found) > 60


def test_the_index_names_every_page() -> None:
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert {*DOCS.rglob("*.md")} - {index} <= named


def test_internals_name_sources_that_are_there() -> None:
    named = set(re.findall(r"`([\w/]+\.(?:py|c))`", (DOCS / "internals.md").read_text(encoding="utf-8")))
    assert len(named) > 20
    there = [
        path.as_posix() for folder in ("machine", "drivers", "isos", "tests") for path in (ROOT / folder).rglob("*.*")
    ]
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in there)} == set()


def test_internals_name_every_file_of_the_store() -> None:
    text = (DOCS / "internals.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "machine").rglob("*.py"), *(ROOT / "drivers").rglob("*.py")]
    known = {name for source in sources for name in FILE.findall(source.read_text(encoding="utf-8"))}
    assert len(known) > 30
    assert {name for name in known - ELSEWHERE if name not in text} == set()

"""Text has an encoding: without one Python takes that of the system, which on Windows isn't UTF-8.

ruff (PLW1514) sees only what it knows the type of; `home.config.read_text()` isn't among that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("machine", "drivers", "isos") for path in sorted((ROOT / folder).rglob("*.py"))]


def without_encoding(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that read or write text, and don't say in which encoding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not any(word.arg in {"encoding", None} for word in node.keywords):
            name = ast.unparse(node.func).removeprefix("tarfile.open").rpartition(".")[2]
            # By its place in the call: read_text(encoding), write_text(data, encoding).
            if len(node.args) < {"read_text": 1, "write_text": 2}.get(name, 0) or (name == "open" and has_mode(node)):
                yield node.lineno


def has_mode(call: ast.Call) -> bool:
    """Whether a call of open names a mode of text: open(path, "w"), path.open("w"), open(path, mode="w")."""
    words = [word for word in (*call.args, *(keyword.value for keyword in call.keywords)) if is_text(word)]
    return any(is_mode(ast.literal_eval(word)) for word in words)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_mode(word: str) -> bool:
    return bool(word) and set(word) <= set("rwax+t")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_has_an_encoding(path: Path) -> None:
    assert list(without_encoding(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("home.config.read_text()", True),
        ("home.config.write_text(text)", True),
        ("path.open('a')", True),
        ("open(path, mode='w')", True),
        ("home.config.read_text(encoding='utf-8')", False),
        ("files.read_text(path)", False),  # ours: UTF-8, and what editors of Windows write
        ("path.read_text('utf-8', 'replace')", False),
        ("path.open('rb')", False),
        ("libvirt.open(uri)", False),
        ("tarfile.open(mode='w')", False),
    ],
)
def test_what_is_found(line: str, found: bool) -> None:
    assert bool(list(without_encoding(ast.parse(line)))) is found

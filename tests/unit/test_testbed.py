"""Tests and benchmarks share the testbed, which knows neither; benchmarks know no tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"testbed": {"tests", "benchmarks", "pytest"}, "benchmarks": {"tests", "pytest"}}


def imported(file: Path) -> set[str]:
    """The first parts of the names of what a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_circle(folder: str) -> None:
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    assert {file.name: imported(file) & FORBIDDEN[folder] for file in files if imported(file) & FORBIDDEN[folder]} == {}

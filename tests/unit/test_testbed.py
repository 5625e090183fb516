"""Tests and benchmarks share the testbed, which knows neither; benchmarks know no tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"tests/testbed": ("tests", "benchmarks", "pytest"), "benchmarks": ("tests", "pytest")}


def imported(file: Path) -> set[str]:
    """What a file imports from, other than from the testbed."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name for name in names if not name.startswith("tests.testbed")}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_circle(folder: str) -> None:
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    for file in files:
        forbidden = {name for name in imported(file) if name.partition(".")[0] in FORBIDDEN[folder]}
        assert forbidden == set(), file

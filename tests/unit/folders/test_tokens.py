"""One-time tokens: who has one mounts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.folders import tokens


def test_a_token_is_spent_by_its_first_use(tmp_path: Path) -> None:
    token = tokens.issue(tmp_path)
    assert tokens.spend(tmp_path, f"/{token}/a b/ü".encode()) == "/a b/ü".encode()
    assert tokens.spend(tmp_path, f"/{token}/a b/ü".encode()) is None
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_is_withdrawn_is_worth_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    token = tokens.issue(tmp_path)
    tokens.withdraw(tmp_path)
    assert tokens.spend(tmp_path, f"/{token}/home".encode()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "path", ["/home", "//home", "/{0}", "{0}/home", "/../{0}/home", "/{0}0/home", "/" + "0" * 32 + "/"]
)
def test_what_is_no_token_mounts_nothing(tmp_path: Path, path: str) -> None:
    token = tokens.issue(tmp_path)
    assert tokens.spend(tmp_path, path.format(token).encode()) is None
    assert len(list(tmp_path.iterdir())) == 1

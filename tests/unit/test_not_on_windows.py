from pathlib import Path

import pytest

from tests.not_on_windows import REASONS, why

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", REASONS)
def test_each_name_is_a_tests(name: str) -> None:
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
    assert why(f"{name}[parameter]") == REASONS[name]


def test_the_rest_runs_there() -> None:
    assert not why("tests/unit/test_store.py::test_a_failing_undo_leaves_what_a_sweep_can_clear")

import pytest

from machine import switches


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), ("Yes", True), (" on ", True), ("0", False), ("", False), ("no", False)]
)
def test_the_words_that_turn_a_switch_on(text: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_OFFLINE", text)
    assert switches.is_on("MACHINE_OFFLINE") is on


def test_a_variable_that_isnt_set_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACHINE_OFFLINE", raising=False)
    assert not switches.is_on("MACHINE_OFFLINE")

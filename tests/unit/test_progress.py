import io
import re
import sys
import time

import pytest

from machine.progress import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_each_phase_is_a_line_with_the_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display, display.of("dev") as shown:
        shown.phase("waiting for Docker")
        shown.note("slow")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\[ *\d+\.\d s\] dev: waiting for Docker\n\[ *\d+\.\d s\] dev: note: slow\n", err)


def test_elsewhere_how_far_it_is_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Display() as display, display.of("dev") as shown:
        shown.phase("uploading")
        for percent in range(101):  # 25 s, as a driver tells it
            shown.phase("uploading")
            shown.advance(f"uploading: {percent} %")
            now += 0.25
    assert capsys.readouterr().err.splitlines() == [
        "[  0.0 s] dev: uploading",
        "[ 10.0 s] dev: uploading: 40 %",
        "[ 20.0 s] dev: uploading: 80 %",
    ]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as display, display.of("dev") as shown:
        shown.phase("waiting for Docker")
        shown.advance("waiting: 1 %")
        shown.note("slow")
    assert capsys.readouterr() == ("", "")


def test_results_go_to_stdout_when_only_stderr_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    results, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", results)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Display() as display, display.of("dev"):
        print("dev was started.")
    assert results.getvalue() == "dev was started.\n"
    assert "dev was started." not in terminal.getvalue()


def test_on_a_terminal_each_machine_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Display() as display:
        with display.of("a") as first, display.of("b") as second:
            first.phase("waiting for [bold] {Docker}")
            second.note("a note: [1] {2}")
            second.phase("uploading")
            second.advance("uploading: [1 %]")
            assert display.bars is not None
            display.bars.refresh()
        assert not display.bars.tasks
    shown = terminal.getvalue()
    assert "a: waiting for [bold] {Docker}" in shown
    assert "b: uploading: [1 %]" in shown
    assert "b: a note: [1] {2}" in shown

"""benchmarks/RESULTS.md: parts that weren't measured keep their sections."""

from __future__ import annotations

import pytest

from benchmarks import results
from benchmarks.measure import Report

ORDER = ["cli", "machines", "peers"]
CLI = "## cli\n\nMeasured on 2026-01-01.\n\n| what |\n|---|\n| old |\n"
PEERS = "## peers\n\nMeasured on 2026-01-02.\n"


def test_a_first_part_gets_a_head() -> None:
    text = results.merge("", {"cli": CLI}, ORDER)
    assert text == f"{results.HEAD}\n{CLI}"


def test_other_parts_stay_as_they_are() -> None:
    before = results.merge("", {"cli": CLI, "peers": PEERS}, ORDER)
    after = results.merge(before, {"peers": "## peers\n\nMeasured on 2026-02-02.\n"}, ORDER)
    assert after == before.replace("2026-01-02", "2026-02-02")


@pytest.mark.parametrize("new", ["## machines\n\nnew\n", "## machines\n"])
def test_a_part_comes_in_its_place(new: str) -> None:
    before = results.merge("", {"peers": PEERS, "cli": CLI}, ORDER)
    assert results.merge(before, {"machines": new}, ORDER) == f"{results.HEAD}\n{CLI}\n{new}\n{PEERS}"


def test_what_nobody_here_wrote_stays() -> None:
    mine = "## by hand\n\nA remark with ## in it.\n\n### and a heading\n"
    text = results.merge(f"# My title\n\nMy words.\n\n{mine}\n{CLI}", {"peers": PEERS}, ORDER)
    assert text == f"# My title\n\nMy words.\n\n{CLI}\n{PEERS}\n{mine}"


def test_merging_the_same_again_changes_nothing() -> None:
    once = results.merge("", {"cli": CLI, "peers": PEERS}, ORDER)
    assert results.merge(once, {"cli": CLI}, ORDER) == once


def test_a_section_has_the_spread_and_the_command_of_each_figure() -> None:
    report = Report("cli")
    report.add("machine ls", [0.2, 0.1, 0.4], "machine ls", goal="at most 1 s")
    report.note("docker-machine: left out: it isn't installed")
    lines = results.section(report, ["4 cores"]).splitlines()
    assert lines[0] == "## cli"
    assert lines[4:6] == ["- 4 cores", "- docker-machine: left out: it isn't installed"]
    assert lines[-1] == "| machine ls | 0.2 s | 0.1 | 0.4 | 3 | at most 1 s | `machine ls` |"


def test_a_part_that_measured_nothing_says_why_and_has_no_table() -> None:
    report = Report("peers")
    report.note("vagrant: left out: vagrant isn't installed")
    assert "| what |" not in results.section(report, [])

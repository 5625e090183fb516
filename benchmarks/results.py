"""RESULTS.md: a section for each part, which stays until the part is measured again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure import Report

HEAD = """\
# Results of `make bench`

Each part as it was measured last, under what its own lines say.
"""


def section(report: Report, host: Sequence[str]) -> str:
    """The part in Markdown. host: what the figures depend on, a line each."""
    text = [f"## {report.title}", "", f"Measured on {datetime.now(UTC):%Y-%m-%d}.", ""]
    text += [f"- {line}" for line in (*host, *report.notes)]
    if report.figures:
        text += ["", "| what | median | min | max | runs | goal | command |", "|---|---|---|---|---|---|---|"]
    for figure in report.figures:
        low, high = min(figure.values), max(figure.values)
        text.append(
            f"| {figure.what} | {figure.median:.3g} {figure.unit} | {low:.3g} | {high:.3g} | {len(figure.values)} "
            f"| {figure.goal} | `{figure.command}` |"
        )
    return "\n".join(text) + "\n"


def merge(old: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """old, with the new sections in place of those of the same title; parts that aren't in order come last."""
    head, sections = _split(old)
    sections |= new
    titles = sorted(sections, key=lambda title: order.index(title) if title in order else len(order))
    return "\n".join([head or HEAD, *(sections[title] for title in titles)])


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the sections by their titles; without the blank lines between them."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return _trimmed(head), {section.splitlines()[0].removeprefix("## "): _trimmed(section) for section in sections}


def _trimmed(text: str) -> str:
    return text.rstrip("\n") + "\n" if text.strip() else ""

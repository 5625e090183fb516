"""make bench: measure, and write RESULTS.md (and the plots).

python benchmarks/run.py [cli] [machines] [libvirt] [many]: only these parts. Each machine lies in a store of its own,
which goes with the benchmark; the image is the one in the user's cache.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import by_libvirt
import cli
import machines
import many
import plot
from measure import Report, host

from machine import paths

RESULTS = Path(__file__).parent / "RESULTS.md"


def main(parts: list[str]) -> None:
    os.environ.setdefault("MACHINE_IMAGES_PATH", str(paths.images()))
    lines = host()
    reports = []
    parts_there = {
        "cli": cli.measure,
        "machines": machines.measure,
        "libvirt": by_libvirt.measure,
        "many": many.measure,
    }
    for part, measure in parts_there.items():
        if part not in parts:
            continue
        print(f"{part} ...", file=sys.stderr, flush=True)
        report = Report(part)
        store = tempfile.mkdtemp(prefix="mb")
        os.environ["MACHINE_STORAGE_PATH"] = store
        try:
            crowd = measure(report)
        finally:
            shutil.rmtree(store, ignore_errors=True)
        if part == "many" and crowd:
            plot.draw(crowd, many.STEP)
        reports.append(report)
    RESULTS.write_text(render(lines, reports))
    print(f"written: {RESULTS}", file=sys.stderr)


def render(lines: list[str], reports: list[Report]) -> str:
    text = ["# Results of `make bench`", "", f"Measured on {datetime.now(UTC):%Y-%m-%d}.", ""]
    text += [f"- {line}" for line in lines]
    for report in reports:
        text += ["", f"## {report.title}", "", "| what | median | min | max | runs | goal | command |"]
        text += ["|---|---|---|---|---|---|---|"]
        for figure in report.figures:
            low, high = min(figure.values), max(figure.values)
            text.append(
                f"| {figure.what} | {figure.median:.3g} {figure.unit} | {low:.3g} | {high:.3g} | {len(figure.values)} "
                f"| {figure.goal} | `{figure.command}` |"
            )
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:] or ["cli", "machines", "libvirt", "many"])

"""How long the verbs take that a shell's start-up file or a prompt may call: they start no machine."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import MACHINE, Report, processor, repeat, run, seconds
from machine import create, spec
from machine.paths import MachineFolder
from machine.spec import Address

CLICK = [sys.executable, "-c", "import click"]
RUNS = 20
STOPPED = 50
LARGE = 300


def measure(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="mb") as folder:
        _fill(Path(folder), STOPPED)
        # As it is when installed: with compiled modules, which an environment may have switched off.
        settings = {"MACHINE_STORAGE_PATH": folder, "PYTHONDONTWRITEBYTECODE": ""}
        run([*MACHINE, "ls"], **settings)
        report.add(
            "floor: Python and click",
            repeat(RUNS, lambda: seconds(CLICK, **settings)),
            "python -c 'import click'",
        )
        report.add(
            "floor: Python and click, processor time",
            repeat(RUNS, lambda: processor(CLICK, **settings)),
            "python -c 'import click'",
        )
        for verb, goal in (
            ("env m1", "at most 1.2 times the floor"),
            ("ip m1", "at most 1.2 times the floor"),
            ("url m1", "at most 1.2 times the floor"),
            ("status m1", ""),
            ("ls", f"at most 0.1 s with {STOPPED} stopped machines"),
        ):
            words = verb.split()
            report.add(
                f"machine {verb}", repeat(RUNS, partial(seconds, [*MACHINE, *words], **settings)),
                f"machine {verb}", goal=goal,
            )  # fmt: skip
            report.add(
                f"machine {verb}, processor time", repeat(RUNS, partial(processor, [*MACHINE, *words], **settings)),
                f"machine {verb}",
            )  # fmt: skip

        _fill(Path(folder), LARGE)
        for verb, goal in (("env m1", "as in a small store"), ("ls", "")):
            report.add(
                f"machine {verb} in a store of {LARGE} stopped machines, processor time",
                repeat(RUNS, partial(processor, [*MACHINE, *verb.split()], **settings)),
                f"machine {verb}", goal=goal,
            )  # fmt: skip


def _fill(store: Path, count: int) -> None:
    for number in range(1, count + 1):
        machine = create.draft(f"m{number}", "qemu", "0" * 64, memory_mib=2048, cpus=2, disk_mib=20480)
        folder = MachineFolder(store / "machines" / machine.name)
        folder.path.mkdir(parents=True, exist_ok=True)
        placed = dataclasses.replace(machine, address=Address(f"127.77.{number // 250 + 1}.{number % 250 + 2}"))
        folder.config.write_text(spec.dumps(placed))

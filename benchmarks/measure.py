"""Timing commands, and the figures that come of it."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MACHINE = [sys.executable, "-m", "machine"]
# A benchmark that hangs is a result, too.
DEADLINE = 900.0


@dataclass(frozen=True)
class Figure:
    """One row of the report. goal: in words, as it was set; command: what anyone can type to measure the same."""

    what: str
    unit: str
    values: list[float]
    command: str
    goal: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Report:
    """notes: what a reader must know besides the figures, a line each."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, values: Sequence[float], command: str, *, unit: str = "s", goal: str = "") -> Figure:
        figure = Figure(what, unit, list(values), command, goal)
        self.figures.append(figure)
        print(f"  {what}: {figure.median:.3g} {unit} (of {len(figure.values)})", file=sys.stderr, flush=True)
        return figure

    def note(self, line: str) -> None:
        self.notes.append(line)
        print(f"  {line}", file=sys.stderr, flush=True)


def run(argv: Sequence[str | Path], **environment: str) -> str:
    """Run a command and return what it printed; its error output is shown when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{argv}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def seconds(argv: Sequence[str | Path], **environment: str) -> float:
    """How long the whole command takes, from start to end."""
    began = time.perf_counter()
    run(argv, **environment)
    return time.perf_counter() - began


def processor(argv: Sequence[str | Path], **environment: str) -> float:
    """The processor time of a command and of all that it started and waited for, user and system, in seconds.

    What goes on without it isn't in it: a QEMU, a machine's helper. Other programs on the host hardly change it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(argv, **environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def repeat(count: int, once: Callable[[], float]) -> list[float]:
    return [once() for _ in range(count)]


def pss_mib(pid: int) -> float:
    """What a process takes of the host's memory, with shared pages divided among those that share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss of {pid}")


def host() -> list[str]:
    """What the figures depend on, a line each."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}",
        run(["qemu-system-x86_64", "--version"]).splitlines()[0],
        f"Python {platform.python_version()}, machine {run([*MACHINE, '--version']).split()[-1]}",
        f"load average before the first run: {os.getloadavg()[0]:.1f}",
    ]

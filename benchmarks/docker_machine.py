"""docker-machine beside `machine`: verbs that need no virtual machine, and create by VirtualBox where that works."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import DEADLINE, MACHINE, Report

# Nothing answers there, so what is measured is the program.
URL = "tcp://127.0.0.1:9"
MACHINES = 50
RUNS = 20
BOOTS = 3
# Where docker-machine keeps what it would download.
ISO = "~/.docker/machine/cache/boot2docker.iso"


@dataclass(frozen=True)
class Program:
    """A command line with a store of its own. Both know $MACHINE_STORAGE_PATH."""

    name: str
    argv: tuple[str, ...]
    store: str

    def __call__(self, *words: str) -> tuple[float, int]:
        """The seconds that the command takes, and its exit code."""
        # As it is when installed: with compiled modules, which an environment may have switched off.
        env = {**os.environ, "MACHINE_STORAGE_PATH": self.store, "PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        done = subprocess.run([*self.argv, *words], capture_output=True, timeout=DEADLINE, env=env, check=False)
        return time.perf_counter() - began, done.returncode

    def must(self, *words: str) -> float:
        took, code = self(*words)
        if code:
            raise RuntimeError(f"{self.name} {' '.join(words)}: exit code {code}")
        return took


def measure(report: Report) -> None:
    if not shutil.which("docker-machine"):
        report.note("docker-machine: left out: it isn't installed")
        return
    version = subprocess.run(["docker-machine", "--version"], capture_output=True, text=True, check=True)
    report.note(version.stdout.strip())
    with _programs() as programs:
        _without_vm(report, programs)
        _by_virtualbox(report, programs)


@contextlib.contextmanager
def _programs() -> Iterator[list[Program]]:
    with tempfile.TemporaryDirectory(prefix="mb") as ours, tempfile.TemporaryDirectory(prefix="mb") as theirs:
        yield [Program("machine", tuple(MACHINE), ours), Program("docker-machine", ("docker-machine",), theirs)]


def _without_vm(report: Report, programs: Sequence[Program]) -> None:
    for program in programs:
        for number in range(1, MACHINES + 1):
            program.must("create", "--driver", "none", "--url", URL, f"m{number}")
    for verb in ("ls", "ls -q", "url m1", "env m1"):
        runs = [[program(*verb.split()) for program in programs] for _ in range(RUNS)]
        for program, answers in zip(programs, zip(*runs, strict=True), strict=True):
            # docker-machine's env asks the daemon first, and fails when nothing answers.
            ends = "" if not (code := answers[0][1]) else f", which ends with exit code {code}"
            what = f"{verb}, {MACHINES} machines of the driver none: {program.name}{ends}"
            report.add(what, [took for took, _ in answers], f"{program.name} {verb}")


def _by_virtualbox(report: Report, programs: Sequence[Program]) -> None:
    iso = Path(ISO).expanduser()
    if not _virtualbox_works() or not iso.exists():
        report.note(f"docker-machine create -d virtualbox: left out: it takes a VBoxManage that works, and {ISO}")
        return
    options = {
        "machine": ("--memory", "1G", "--cpus", "2"),
        "docker-machine": (
            *("--virtualbox-memory", "1024", "--virtualbox-cpu-count", "2"),
            *("--virtualbox-boot2docker-url", f"file://{iso}"),
        ),
    }
    took: dict[str, list[float]] = {program.name: [] for program in programs}
    for _ in range(BOOTS):
        for program in programs:
            took[program.name].append(program.must("create", "--driver", "virtualbox", *options[program.name], "dev"))
            program.must("rm", "-y", "dev")
    for name, values in took.items():
        command = f"{name} create --driver virtualbox {' '.join(options[name])} dev".replace(str(iso), ISO)
        report.add(f"create by virtualbox, each with its own guest: {name}", values, command)


def _virtualbox_works() -> bool:
    if not (tool := shutil.which("VBoxManage")):
        return False
    return subprocess.run([tool, "list", "hostinfo"], capture_output=True, check=False).returncode == 0

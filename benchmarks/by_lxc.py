"""System containers: one at a time, many at once, and what a program in one costs beside the same on the host."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.measure import MACHINE, Report, repeat, run, seconds
from machine import store
from tests.testbed.places import Missing, lxc_missing

RUNS, PAIRS = 20, 5
AT_ONCE = 20
DRIVER = ("--driver", "lxc", "--memory", "1G", "--mount", "none")
# Some seconds of a processor, and some of a disk.
COUNT = "i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done"
WRITE = "busybox dd if=/dev/zero of={}/file bs=1M count=512 conv=fsync 2>/dev/null; busybox rm {}/file"


def measure(report: Report) -> None:
    """Left out, and said so, where no container can be made."""
    try:
        lxc_missing()
    except Missing as reason:
        report.note(f"left out: {reason}")
        return
    report.add("create", repeat(RUNS, _create), "machine create --driver lxc NAME", goal="at most 1.0 s")
    run([*MACHINE, "create", "-q", *DRIVER, "one"])
    try:
        _life(report, "one")
        _beside_the_host(report, "one")
    finally:
        run([*MACHINE, "rm", "-y", "-q", "one"])
    _many(report)


def _create() -> float:
    took = seconds([*MACHINE, "create", "-q", *DRIVER, "one"])
    run([*MACHINE, "rm", "-y", "-q", "one"])
    return took


def _life(report: Report, name: str) -> None:
    pairs = [(seconds([*MACHINE, "stop", "-q", name]), seconds([*MACHINE, "start", "-q", name])) for _ in range(PAIRS)]
    report.add("stop", [stop for stop, _ in pairs], "machine stop NAME")
    report.add("start of a stopped machine", [start for _, start in pairs], "machine start NAME", goal="at most 0.8 s")


def _beside_the_host(report: Report, name: str) -> None:
    """In turns, so that the host's load counts for both. busybox's shell on both sides."""
    settings = _docker(name)
    busybox = shutil.which("busybox") or "busybox"
    archive = store.folder_of(name) / "busybox.tar"
    run(["tar", "-C", str(Path(busybox).parent), "-c", "-f", archive, "busybox"])
    run(["docker", "import", archive, "busybox"], **settings)
    archive.unlink()
    run(
        [
            "docker",
            "run",
            "-d",
            "--name",
            "it",
            "-e",
            "PATH=/",
            "-v",
            "data:/data",
            "busybox",
            "busybox",
            "sleep",
            "1d",
        ],
        **settings,
    )
    here = str(store.folder_of(name).path)
    for what, script, goal in (("processor", COUNT, "at most 1.05"), ("disk", WRITE, "at most 1.1")):
        ratios = []
        for _ in range(PAIRS):
            on_host = seconds([busybox, "sh", "-c", script.replace("{}", here)])
            inside = ["docker", "exec", "it", "busybox", "sh", "-c", script.replace("{}", "/data")]
            ratios.append(seconds(inside, **settings) / on_host)
        command = f"docker exec, and the same by busybox on the host: {script.replace('{}', 'DIR')}"
        report.add(f"work of the {what}: how many times that on the host", ratios, command, unit="times", goal=goal)


def _docker(name: str) -> dict[str, str]:
    certs = str(store.folder_of(name).path)
    return {"DOCKER_HOST": run([*MACHINE, "url", name]).strip(), "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": certs}


def _many(report: Report) -> None:
    names = [f"a{number}" for number in range(1, AT_ONCE + 1)]
    try:
        took = seconds([*MACHINE, "create", "-q", *DRIVER, *names])
        report.add(
            f"{AT_ONCE} machines by one create", [took], f"machine create --driver lxc a1 ... a{AT_ONCE}",
            goal="at most 8 s",
        )  # fmt: skip
        report.add(
            f"memory of each of {AT_ONCE}, idle, without the page cache", [_resident(name) for name in names],
            "the control group's memory.stat: rss, or anon and shmem", unit="MiB", goal="at most 45 MiB",
        )  # fmt: skip
    finally:
        if left := [name for name in names if store.exists(name)]:
            run([*MACHINE, "rm", "-y", "-q", *left])


def _resident(name: str) -> float:
    group = f"lxc.payload.{store.load(name).uuid}"
    stat = next(Path("/sys/fs/cgroup").glob(f"**/{group}/memory.stat"))
    found = dict(line.split() for line in stat.read_text(encoding="utf-8").splitlines())
    words = ("total_rss", "total_shmem") if "total_rss" in found else ("anon", "shmem")
    return sum(int(found[word]) for word in words) / 2**20

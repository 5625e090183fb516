"""Many machines on one host: how long they take to make, and what they take of its memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import MACHINE, Report, pss_mib, run, seconds
from machine import store

AT_ONCE = 20
MOST = 50
STEP = 10


def measure(report: Report) -> list[tuple[int, float, float]]:
    """Returns, for each size of the crowd, (machines alive, seconds for the last STEP of them, MiB of PSS each)."""
    names = [f"a{number}" for number in range(1, MOST + 1)]
    try:
        took = seconds([*MACHINE, "create", "-q", *names[:AT_ONCE]])
        report.add(
            f"{AT_ONCE} machines by one create", [took], f"machine create a1 ... a{AT_ONCE}", goal="at most 20 s"
        )
        report.add(
            f"host memory of each of {AT_ONCE} (PSS)", _pss(names[:AT_ONCE]), "grep Pss /proc/PID/smaps_rollup",
            unit="MiB", goal="at most 130 MiB",
        )  # fmt: skip
        run([*MACHINE, "rm", "-y", "-q", *names[:AT_ONCE]])
        crowd = _grow(names)
        answered = sum(_answers(name) for name in names)
        report.add(
            f"of {MOST} machines alive, those whose docker info answered", [answered], "docker info", unit="machines"
        )
        return crowd
    finally:
        if left := [name for name in names if store.exists(name)]:
            run([*MACHINE, "rm", "-y", "-q", *left])


def _grow(names: list[str]) -> list[tuple[int, float, float]]:
    crowd = []
    for end in range(STEP, MOST + 1, STEP):
        took = seconds([*MACHINE, "create", "-q", *names[end - STEP : end]])
        each = _pss(names[:end])
        crowd.append((end, took, sum(each) / len(each)))
    return crowd


def _pss(names: list[str]) -> list[float]:
    return [pss_mib(int(Path(store.folder_of(name) / "qemu.pid").read_text(encoding="utf-8"))) for name in names]


def _answers(name: str) -> bool:
    url = run([*MACHINE, "url", name]).strip()
    certs = str(store.folder_of(name).path)
    settings = {"DOCKER_HOST": url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": certs}
    return bool(run(["docker", "info", "--format", "{{.ID}}"], **settings).strip())

"""The same cold create by QEMU and by libvirt, one after the other, so that the host's load counts for both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.measure import MACHINE, Report, run, seconds
from machine import paths
from tests.testbed.places import LibvirtPlace, Missing, libvirt_session, libvirt_system

RUNS = 3
SIZE = ("--memory", "1G", "--cpus", "2")


def measure(report: Report) -> None:
    """Skipped, and said so, where there is no libvirtd."""
    for uri, host in (("qemu:///system", libvirt_system), ("qemu:///session", libvirt_session)):
        try:
            _compare(report, uri, host)
        except Missing as reason:
            report.note(f"{uri}: left out: {reason}")


def _compare(report: Report, uri: str, host: Callable[[Path], AbstractContextManager[LibvirtPlace]]) -> None:
    with host(paths.images()) as place:
        pairs = [(_by_qemu(), _by_libvirt(place)) for _ in range(RUNS)]
        place.close()
    command = f"machine create --driver libvirt --libvirt-uri {uri} NAME"
    report.add(f"create, {uri}", [ours for _, ours in pairs], command)
    report.add(
        f"create, {uri}: how many times create --cold by qemu",
        [ours / theirs for theirs, ours in pairs],
        command,
        unit="times",
        goal="at most 1.3",
    )


def _by_qemu() -> float:
    took = seconds([*MACHINE, "create", "-q", "--cold", *SIZE, "cold"])
    run([*MACHINE, "rm", "-y", "-q", "cold"])
    return took


def _by_libvirt(place: LibvirtPlace) -> float:
    took = place.create("dev", *SIZE).seconds
    place.machine("rm", "-y", "dev")
    return took

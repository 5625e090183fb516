"""One machine at a time: boots, clones, and what follows in its life; each beside its floor."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from machine.drivers.qemu import Qemu, disk, migration, resume, template
from machine.drivers.qemu.argv import AGENT, MONITOR, Memory
from machine.drivers.qemu.qmp import GuestAgent, Qmp

from benchmarks.measure import MACHINE, Report, processor, repeat, run, seconds
from machine import create, loopback, paths
from machine.docker import api
from machine.errors import MachineError
from machine.guest import credentials
from machine.images import cache
from machine.paths import MachineFolder
from machine.run import run as machine_run

COLD = 3
WARM = 20


def measure(report: Report) -> None:
    """Needs an empty store at $MACHINE_STORAGE_PATH, and an image in the cache."""
    about = cache.find(cache.current("machineos").digest)
    report.add("ISO of machineos", [about.size / 1e6], "machine iso ls", unit="MB", goal="at most 95 MB")
    report.add(
        "floor: bare QEMU, direct boot, to Docker answering",
        repeat(COLD, _bare_boot),
        "benchmarks/machines.py, _bare_boot: the driver's command line, without the command line of machine",
        goal="at most 20 s on an idle host",
    )
    cold = repeat(COLD, lambda: _create("cold", "--cold"))
    report.add("create --cold", cold, "machine create --cold NAME")
    report.add(
        "create, the first: the template is made too", [_create("first", keep=True)], "machine create NAME",
        goal="at most 1.2 times create --cold",
    )  # fmt: skip
    report.add(
        "floor: raw clone, to the guest's agent answering",
        repeat(WARM, _raw_clone),
        "benchmarks/machines.py, _raw_clone",
    )
    report.add("create", repeat(WARM, lambda: _create("warm")), "machine create NAME", goal="at most 1.5 s")
    report.add(
        "create: processor time on this side", repeat(COLD, lambda: _create("warm", measured=processor)),
        "machine create NAME: user and system, without QEMU and the helper", goal="at most 0.25 s",
    )  # fmt: skip
    _life(report, "first")


def _life(report: Report, name: str) -> None:
    used = run([*MACHINE, "ssh", name, "free", "-m"]).splitlines()[1].split()[2]
    report.add(
        "memory used in an idle guest", [float(used)], "machine ssh NAME free -m", unit="MiB", goal="at most 110 MiB"
    )
    pairs = repeat_pairs(5, [*MACHINE, "suspend", "-q", name], [*MACHINE, "start", "-q", name])
    report.add("suspend", [pair[0] for pair in pairs], "machine suspend NAME", goal="at most 1 s")
    report.add("start of a suspended machine", [pair[1] for pair in pairs], "machine start NAME", goal="at most 1 s")
    pairs = repeat_pairs(COLD, [*MACHINE, "stop", "-q", name], [*MACHINE, "start", "-q", name])
    report.add("stop", [pair[0] for pair in pairs], "machine stop NAME")
    report.add(
        "start of a stopped machine", [pair[1] for pair in pairs], "machine start NAME",
        goal="at most 1 s more than the bare boot",
    )  # fmt: skip
    run([*MACHINE, "rm", "-y", name])


def repeat_pairs(count: int, first: list[str], second: list[str]) -> list[tuple[float, float]]:
    return [(seconds(first), seconds(second)) for _ in range(count)]


def _create(name: str, *options: str, keep: bool = False, measured: Callable[..., float] = seconds) -> float:
    took = measured([*MACHINE, "create", "-q", *options, name])
    if not keep:
        run([*MACHINE, "rm", "-y", "-q", name])
    return took


@contextlib.contextmanager
def _bare(name: str) -> Iterator[Qemu]:
    """A machine that only the driver knows of, with keys and seed, switched off."""
    digest = cache.current("machineos").digest
    machine = create.draft(name, "qemu", digest, memory_mib=2048, cpus=2, disk_mib=20480)
    machine = dataclasses.replace(machine, address=loopback.choose([], paths.store()))
    with tempfile.TemporaryDirectory(prefix="mb") as top:
        folder = MachineFolder(Path(top) / "machines" / name)
        folder.path.mkdir(parents=True)
        qemu = Qemu(machine, folder, machine_run)
        credentials.prepare(qemu)
        try:
            yield qemu
        finally:
            qemu.remove()


def _bare_boot() -> float:
    with _bare("bare") as qemu:
        began = time.perf_counter()
        disk.make(qemu.vm)
        qemu.vm.launch(Memory(qemu.machine.memory_mib))
        while not api.Client(qemu.machine, qemu.folder, qemu.address()).ping():
            time.sleep(0.05)
        return time.perf_counter() - began


def _raw_clone() -> float:
    """The template's memory and disk in a new QEMU; the guest keeps the template's identity."""
    origin = next(template.all_of(paths.store()))
    about = origin.about()
    with _bare("raw") as qemu:
        began = time.perf_counter()
        machine_run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", origin.disk, "-F", "qcow2", qemu.folder / "disk.qcow2"]
        )
        memory = Memory(
            int(about.recipe["base_mib"]), origin.memory, read_only=about.read_only, reporting=about.read_only
        )
        qemu.vm.launch(memory, incoming=True)
        with resume.connect(qemu.folder), Qmp(qemu.folder / MONITOR) as monitor:
            migration.load(monitor, origin.state, without_memory=True)
        while True:
            with contextlib.suppress(MachineError), GuestAgent(qemu.folder / AGENT) as agent:
                agent.execute("guest-ping")
                return time.perf_counter() - began

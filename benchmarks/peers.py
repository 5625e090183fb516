"""The same guest through its life by `machine` and by vagrant, in turns, so that the host's load counts for both; and
docker-machine, where it is installed."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import docker_machine
from benchmarks.measure import Report, run
from benchmarks.vagrant import Vagrant
from machine import acceleration, paths
from machine.run import run as machine_run
from tests.testbed.places import LibvirtPlace, Missing, libvirt_system

ROUNDS = 3
CPUS, MEMORY_MIB, DISK = 2, 1024, "20G"
SIZE = ("--memory", f"{MEMORY_MIB}M", "--cpus", str(CPUS), "--disk", DISK)
# In the order of a life.
STEPS = {
    "create": "create",
    "status": "status",
    "ssh": "a command by ssh",
    "suspend": "suspend",
    "resume": "start of a suspended machine",
    "pause": "suspend, memory stays in RAM",
    "unpause": "resume from RAM",
    "stop": "stop",
    "start": "start of a stopped machine",
    "remove": "remove",
}
STARTING = {"create", "resume", "unpause", "start"}


class Failed(Exception):
    """A command ended badly, or didn't end."""


class Timed(NamedTuple):
    step: str
    what: str
    command: str
    seconds: float


@dataclass(frozen=True)
class Peer:
    """verbs: the command of each step. wait_for_docker: for those whose commands don't."""

    name: str
    verbs: Mapping[str, tuple[str, ...]]
    run: Callable[[Sequence[str]], object]
    wait_for_docker: Callable[[], None] | None = None

    def life(self, steps: Iterable[str]) -> Iterator[Timed]:
        """Go through those of the steps that this peer has a command for. Raises Failed."""
        for step in (step for step in steps if step in self.verbs):
            command = " ".join(self.verbs[step])
            try:
                yield from self._step(step, command)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                said = str(error).partition("\n")[2] or str(error)
                raise Failed(f"{command}: {' '.join(said.split())[:200]}") from error

    def _step(self, step: str, command: str) -> Iterator[Timed]:
        began = time.perf_counter()
        self.run(self.verbs[step])
        took = time.perf_counter() - began
        if step not in STARTING or not self.wait_for_docker:
            yield Timed(step, self.name, command, took)
            return
        self.wait_for_docker()
        answered = time.perf_counter() - began
        yield Timed(step, f"{self.name}, to the prompt", command, took)
        yield Timed(step, f"{self.name}, to Docker answering", f"{command}; curl https://dev:2375/_ping", answered)


def measure(report: Report) -> None:
    """What isn't installed is left out, and said so."""
    if missing := [tool for tool in ("vagrant", "qemu-img", "curl", "tar") if not shutil.which(tool)]:
        report.note(f"vagrant: left out: {', '.join(missing)} isn't installed")
    else:
        try:
            _against_vagrant(report)
        except Missing as reason:
            report.note(f"vagrant: left out: {reason}")
    docker_machine.measure(report)


def _against_vagrant(report: Report) -> None:
    qemu = shutil.which("qemu-system-x86_64") or ""
    kvm = acceleration.choose(qemu, paths.store() / "acceleration.json", machine_run) == "kvm"
    with libvirt_system(paths.images(), kvm=kvm) as place, contextlib.closing(place), _folder() as folder:
        vagrant = Vagrant(folder, place.enter, cpus=CPUS, memory_mib=MEMORY_MIB, disk=DISK, kvm=kvm)
        if not (plugin := vagrant.plugin()):
            report.note("vagrant: left out: its plugin vagrant-libvirt isn't installed")
            return
        report.note(", ".join((run(["vagrant", "--version"]).strip(), plugin, run(["libvirtd", "--version"]).strip())))
        report.note(
            f"all with the same kernel and root, {CPUS} processors, {MEMORY_MIB} MiB, a disk of {DISK}, virtio, q35, "
            f"{'KVM' if kvm else 'emulated'}; vagrant by benchmarks/Vagrantfile"
        )
        report.note(
            "vagrant ends when SSH lets it in, and is measured until Docker answers, too; machine ends when both do"
        )
        vagrant.add_box()
        ours = [_ours(place, "qemu", "--cold"), _ours(place, "qemu"), _ours(place, "libvirt")]
        _lives(report, [*ours, _theirs(vagrant)])


def _lives(report: Report, peers: Sequence[Peer]) -> None:
    figures: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    # The first makes what the others use: templates, volumes.
    for timed in itertools.chain.from_iterable(_one(report, peer, ("create", "remove")) for peer in peers):
        if timed.step == "create":
            figures["the first create", timed.what, timed.command].append(timed.seconds)
    for timed in itertools.chain.from_iterable(_one(report, peer, STEPS) for _ in range(ROUNDS) for peer in peers):
        figures[STEPS[timed.step], timed.what, timed.command].append(timed.seconds)
    for title in ("the first create", *STEPS.values()):
        for (step, what, command), values in figures.items():
            if step == title:
                report.add(f"{step}: {what}", values, command)


def _one(report: Report, peer: Peer, steps: Iterable[str]) -> Iterator[Timed]:
    """One life. A command that fails ends it, and the report says so: there are fewer runs then."""
    print(f"  {peer.name} ...", file=sys.stderr, flush=True)
    try:
        yield from peer.life(steps)
    except Failed as failure:
        report.note(f"{peer.name}: a life ended early: {failure}")
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            peer.run(peer.verbs["remove"])


def _ours(place: LibvirtPlace, driver: str, *options: str) -> Peer:
    verbs = {
        "create": ("create", "-q", "--driver", driver, *options, *SIZE, "dev"),
        "status": ("status", "dev"),
        "ssh": ("ssh", "dev", "true"),
        "suspend": ("suspend", "-q", "dev"),
        "resume": ("start", "-q", "dev"),
        "stop": ("stop", "-q", "dev"),
        "start": ("start", "-q", "dev"),
        "remove": ("rm", "-q", "-y", "dev"),
    }
    if options:  # once it is made, it lives as the others do
        verbs = {step: verbs[step] for step in ("create", "remove")}
    return Peer(
        ", ".join(("machine", driver, *options)),
        {step: ("machine", *words) for step, words in verbs.items()},
        lambda words: run(place.argv(*words[1:]), **place.env),
    )


def _theirs(vagrant: Vagrant) -> Peer:
    paused = ("env", "PEER_SUSPEND=pause", "vagrant")
    verbs = {
        "create": ("vagrant", "up", "--no-provision", "--provider", "libvirt"),
        "status": ("vagrant", "status"),
        "ssh": ("vagrant", "ssh", "-c", "true"),
        "suspend": ("vagrant", "suspend"),
        "resume": ("vagrant", "resume"),
        "pause": (*paused, "suspend"),
        "unpause": (*paused, "resume"),
        "stop": ("vagrant", "halt"),
        "start": ("vagrant", "up", "--no-provision"),
        "remove": ("vagrant", "destroy", "-f"),
    }
    return Peer("vagrant", verbs, lambda words: vagrant.run(*words), vagrant.wait_for_docker)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """In /tmp itself: QEMU, which isn't root, goes through it."""
    with tempfile.TemporaryDirectory(prefix="peers", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder

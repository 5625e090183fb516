"""A folder of this computer in a machine: the same work on it, on the machine's own disk, and by virtio-9p.

sshfs isn't in machineos, and so has no row here; docs/folders.md has what was measured of it by hand.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import folder_calls
from benchmarks.measure import MACHINE, Report, run
from machine import paths

ROUNDS = 3
FILES, BYTES = 2000, 2000
MIB = 200
TAG = "bench"
WORK = f"""
now() {{ read -r up _ </proc/uptime; echo "${{up%.*}}${{up#*.}}"; }}
timed() {{
    name=$1; shift
    began=$(now)
    "$@" >/dev/null
    echo "$name $(($(now) - began))"
}}
forgotten() {{ sync; echo 3 >/proc/sys/vm/drop_caches; sleep 2; }}
untar() {{ tar -xf /tmp/tree.tar; sync; }}
contents() {{ find tree -type f -print0 | xargs -0 cat; }}
cd "$1" || exit
timed untar untar
forgotten; timed cold ls -lR tree
timed warm ls -lR tree
forgotten; timed contents contents
timed write dd if=/dev/zero of=big bs=1M count={MIB} conv=fsync
forgotten; timed read dd if=big of=/dev/null bs=1M
timed remove rm -r tree big
"""
JOBS = {
    "untar": f"untar {FILES} files of {BYTES} B, and sync",
    "cold": "ls -lR of them, nothing cached",
    "warm": "ls -lR once more",
    "contents": "read them all",
    "write": f"write {MIB} MiB, and fsync",
    "read": f"read {MIB} MiB",
    "remove": "remove all",
}
COMMAND = "benchmarks/folders.py, WORK"


def measure(report: Report) -> None:
    """Needs an empty store at $MACHINE_STORAGE_PATH, and an image in the cache."""
    folder_calls.measure(report)
    with tempfile.TemporaryDirectory(prefix="mb") as top:
        host, exported = Path(top) / "host", Path(top) / "exported"
        for folder in (host, exported):
            folder.mkdir()
        with _exporting(exported):
            run([*MACHINE, "create", "-q", "--cold", "--cpus", "2", "--mount", host, "dev"])
        try:
            _compare(report, host)
        finally:
            run([*MACHINE, "rm", "-y", "-q", "dev"])


def _compare(report: Report, host: Path) -> None:
    archive = host / "tree.tar"
    archive.write_bytes(_tree())
    _root(f"cp '{archive}' /tmp/tree.tar")
    places = {"disk": "/var/lib/docker/bench", "folder": f"{host}/work", "9p": "/mnt/bench"}
    _root(f"mkdir -p /mnt/bench {places['disk']} '{places['folder']}' && modprobe -a 9p 9pnet_virtio")
    _root(f"mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144 {TAG} /mnt/bench")
    took: dict[str, dict[str, list[float]]] = {place: {job: [] for job in JOBS} for place in places}
    calls, used = 0, 0.0
    for round_ in range(ROUNDS):
        # Each is first once: what comes later finds the host's caches warmer.
        order = list(places)
        for place in order[round_:] + order[:round_]:
            before = _calls(), _processor_time()
            for line in _root(WORK, places[place]).splitlines():
                job, hundredths = line.split()
                took[place][job].append(int(hundredths) / 100)
            if place == "folder":
                calls, used = calls + _calls() - before[0], used + _processor_time() - before[1]
    for job, words in JOBS.items():
        own = report.add(f"{words}: the machine's own disk", took["disk"][job], COMMAND)
        shared = report.add(f"{words}: the folder", took["folder"][job], COMMAND, goal="at most virtio-9p's")
        other = report.add(f"{words}: virtio-9p, cache=loose", took["9p"][job], COMMAND)
        report.note(
            f"{words}: the folder takes {shared.median / max(own.median, 0.01):.2g} times the disk's time, "
            f"and {shared.median / max(other.median, 0.01):.2g} times virtio-9p's"
        )
    report.add(
        f"the server's processor time per call, of {calls} calls", [used / calls * 1e6], COMMAND, unit="us",
        goal="at most 150 us",
    )  # fmt: skip


def _root(script: str, *words: str) -> str:
    """What root of the guest prints; the script's `$1` and so on are words."""
    quoted = " ".join(f"'{word}'" for word in ("sh", "-c", script.replace("'", "'\\''"), "sh", *words))
    return run([*MACHINE, "ssh", "dev", f"sudo {quoted}"])


def _tree() -> bytes:
    """A tar of files that don't compress, 50 in each folder."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tree:
        for number in range(FILES):
            entry = tarfile.TarInfo(f"tree/{number // 50:02d}/{number:04d}")
            entry.size, entry.mode = BYTES, 0o644
            tree.addfile(entry, io.BytesIO(os.urandom(BYTES)))
    return target.getvalue()


def _calls() -> int:
    """The calls that the guest's client has made, on all mounts of NFS."""
    text = _root("cat /proc/self/mountstats")
    return sum(int(count) for count in re.findall(r"^\s+[A-Z]+: (\d+) ", text, re.MULTILINE))


def _processor_time() -> float:
    """Seconds that the machine's servers of folders have used."""
    used = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "machine.folders" in words and str(paths.store()) in words[-1]:
                used += sum(process.cpu_times()[:2])
    return used


@contextlib.contextmanager
def _exporting(folder: Path) -> Iterator[None]:
    """Have each QEMU that is started export a folder by virtio-9p, which no option of ours does."""
    name = "qemu-system-x86_64"
    real = shutil.which(name)
    with tempfile.TemporaryDirectory(prefix="mb") as bin_:
        wrapper = Path(bin_) / name
        options = f"local,path={folder},mount_tag={TAG},security_model=none"
        wrapper.write_text(f'#!/bin/sh\n[ "$1" = --version ] || set -- "$@" -virtfs "{options}"\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
        old = os.environ["PATH"]
        os.environ["PATH"] = f"{bin_}:{old}"
        try:
            yield
        finally:
            os.environ["PATH"] = old

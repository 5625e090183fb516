"""make bench: measure, and write RESULTS.md (and the plots).

python -m benchmarks [cli] [machines] [libvirt] [lxc] [folders] [peers] [many]: only these parts; what RESULTS.md says
of the others stays. Each machine lies in a store of its own, which goes with the benchmark; the image is the one in the
user's cache.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import by_libvirt, by_lxc, cli, folders, machines, many, peers, plot, results
from benchmarks.measure import Report, host
from machine import paths

RESULTS = Path(__file__).parent / "RESULTS.md"
PARTS = {
    "cli": cli.measure,
    "machines": machines.measure,
    "libvirt": by_libvirt.measure,
    "lxc": by_lxc.measure,
    "folders": folders.measure,
    "peers": peers.measure,
    "many": many.measure,
}


def main(parts: list[str]) -> None:
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    os.environ.setdefault("MACHINE_IMAGES_PATH", str(paths.images()))
    for part, measure in PARTS.items():
        if part not in parts:
            continue
        print(f"{part} ...", file=sys.stderr, flush=True)
        lines = host()
        report = Report(part)
        store = tempfile.mkdtemp(prefix="mb")
        os.environ["MACHINE_STORAGE_PATH"] = store
        try:
            crowd = measure(report)
        finally:
            shutil.rmtree(store, ignore_errors=True)
        if part == "many" and crowd:
            plot.draw(crowd, many.STEP)
        # At once: a later part that fails takes nothing away.
        _write(part, results.section(report, lines))
        print(f"written: {RESULTS}", file=sys.stderr)


def _write(part: str, section: str) -> None:
    old = RESULTS.read_text() if RESULTS.exists() else ""
    RESULTS.write_text(results.merge(old, {part: section}, list(PARTS)))


if __name__ == "__main__":
    main(sys.argv[1:] or list(PARTS))

"""The guest's script that looks for the engine's id in dockerd's memory, with files in place of /proc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "isos/machineos/rootfs/usr/lib/machineos/prepare-template"
ID = "7d0f1f2e-3c4b-4a59-8d6e-112233445566"
PAGE = 4096


@pytest.mark.skipif(not shutil.which("strings"), reason="needs strings")
@pytest.mark.parametrize(
    ("heap", "access", "found"),
    [(0xC000000000, "rw-p", True), (0x4000000000, "rw-p", True), (0x4000000000, "r--p", False)],
)
def test_the_place_of_the_engines_id(tmp_path: Path, heap: int, access: str, found: bool) -> None:
    process = tmp_path / "7"
    process.mkdir()
    place = heap + PAGE + 100
    lines = [
        f"{range_} {rest}"
        for range_, rest in (("00400000-00500000", "r-xp"), (f"{heap:x}-{heap + 4 * PAGE:x}", access))
    ]
    (process / "maps").write_text("".join(f"{line} 00000000 00:00 0\n" for line in lines))
    with (process / "mem").open("wb") as memory:
        try:
            memory.seek(place)
            memory.write(ID.encode())
            memory.truncate(heap + 4 * PAGE)
        except OSError:
            pytest.skip("no file can be that large here")
    (tmp_path / "id").write_text(f"{ID}\n")
    (tmp_path / "pid").write_text("7\n")
    function = SCRIPT.read_text(encoding="utf-8").partition("find_engine_id() {")[2].partition("\n}\n")[0]
    for theirs, ours in (
        ("/var/lib/docker/engine-id", "id"),
        ("/run/docker.pid", "pid"),
        ("/proc", "."),
        ("$RUN", "run"),
    ):
        function = function.replace(theirs, ours)
    (tmp_path / "run").mkdir()
    ended = subprocess.run(["sh", "-c", f"find() {{{function}\n}}\nfind"], cwd=tmp_path, check=False)
    assert (ended.returncode == 0) is found
    assert (tmp_path / "run/engine-id").read_text().split() == ([str(place)] if found else [])

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from machine.isos.machineos import cpio


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").symlink_to("busybox")
    (tree / "init").write_text("#!/bin/sh\n")
    (tree / "init").chmod(0o755)
    return tree


def test_cpio_reads_what_was_written(tree: Path, tmp_path: Path) -> None:
    if not (tool := shutil.which("cpio") or shutil.which("busybox")):
        pytest.skip("no cpio here")
    out = tmp_path / "out"
    out.mkdir()
    argv = [tool, "-i"] if tool.endswith("cpio") else [tool, "cpio", "-i"]
    subprocess.run(argv, input=cpio.archive(tree, time=1), cwd=out, check=True, capture_output=True)
    assert (out / "init").read_text() == "#!/bin/sh\n"
    assert (out / "init").stat().st_mode & 0o777 == 0o755
    assert (out / "bin/sh").readlink().name == "busybox"


def test_archive_is_alike_for_like_contents(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    os.utime(copy / "init", (0, 0))
    assert cpio.archive(tree, time=1) == cpio.archive(copy, time=1)
    assert cpio.archive(tree, time=1) != cpio.archive(tree, time=2)


def test_parts_stand_on_four_bytes(tree: Path) -> None:
    assert len(cpio.archive(tree, time=1)) % 4 == 0
    assert len(cpio.entry("a", 0o100644, b"12345", number=1, time=0)) % 4 == 0

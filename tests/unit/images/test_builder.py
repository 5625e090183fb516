"""A build inside a machine: in place of the machine, a shell of this host with programs that act for apt and Python."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from machine.isos.machineos import recipe

from machine.errors import ImageCorrupt, ToolFailed
from machine.images import builder
from machine.progress import Silent
from machine.run import Completed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of Unix")
# What acts for Python: it writes an ISO as the build would, of more than one chunk.
PYTHON = """\
#!/bin/sh
echo 'step: writing the ISO'
test -f machine/isos/machineos/build.py || exit 9
cp {iso} out/machineos-x86_64.iso
cp {manifest} out/machineos-x86_64.json
"""


class Here:
    """A remote that is this host."""

    def __init__(self, programs: Path) -> None:
        self.path = f"{programs}:{os.environ['PATH']}"

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        done = subprocess.run(argv, input=input or b"", capture_output=True, env={"PATH": self.path}, check=False)
        assert not check or done.returncode == 0, done
        return Completed(list(argv), done.returncode, done.stdout.decode(), done.stderr.decode())

    def read(self, path: str) -> str | None:
        return Path(path).read_text(encoding="utf-8") if Path(path).exists() else None

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        raise AssertionError("nothing is written but the recipe")


class Told(Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []

    def phase(self, what: str) -> None:
        self.phases.append(what)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that act for those of the machine, and what they make: of two chunks and a half."""
    monkeypatch.setattr(builder, "FOLDER", str(tmp_path / "guest"))
    monkeypatch.setattr(builder, "PAUSE", 0.01)
    monkeypatch.setattr(builder, "CHUNK", 1000)
    content = bytes(range(250)) * 10
    (tmp_path / "iso").write_bytes(content)
    about = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "architecture": "x86_64"}
    (tmp_path / "manifest").write_text(json.dumps(about), encoding="utf-8")
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder / "apt-get", '#!/bin/sh\necho "$@" >>apt.log\n')
    program(folder / "python3", PYTHON.format(iso=tmp_path / "iso", manifest=tmp_path / "manifest"))
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def built(programs: Path, folder: Path) -> tuple[Path, list[str]]:
    remote, told = Here(programs), Told()
    return builder.build(remote, "x86_64", told, folder), told.phases


def test_the_iso_and_its_manifest_come_back(programs: Path, tmp_path: Path) -> None:
    iso, phases = built(programs, tmp_path / "out")
    assert iso.read_bytes() == (tmp_path / "iso").read_bytes()
    assert json.loads(iso.with_suffix(".json").read_text())["architecture"] == "x86_64"
    assert "writing the ISO" in phases
    asked = (tmp_path / "guest/apt.log").read_text()
    assert "install mmdebstrap gcc" in asked


def test_a_build_that_fails_shows_its_last_words(programs: Path, tmp_path: Path) -> None:
    program(programs / "python3", "#!/bin/sh\necho step: one\necho 'no space left' >&2\nexit 3\n")
    with pytest.raises(ToolFailed, match="no space left"):
        built(programs, tmp_path / "out")


def test_tools_that_cant_be_installed_end_it(programs: Path, tmp_path: Path) -> None:
    program(programs / "apt-get", "#!/bin/sh\necho 'unable to fetch'\nexit 100\n")
    with pytest.raises(ToolFailed, match="unable to fetch"):
        built(programs, tmp_path / "out")


@pytest.mark.parametrize("change", ["iso", "manifest"])
def test_what_arrives_otherwise_than_it_was_built_is_refused(programs: Path, tmp_path: Path, change: str) -> None:
    if change == "iso":
        (tmp_path / "iso").write_bytes(bytes(2500))
    else:
        (tmp_path / "manifest").write_text("{}", encoding="utf-8")
    with pytest.raises(ImageCorrupt):
        built(programs, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_recipe_is_whole(tmp_path: Path) -> None:
    """With nothing but what is copied in, and Python alone, the build can begin; its digest is that of this host."""
    with tarfile.open(fileobj=io.BytesIO(builder.recipe("x86_64"))) as tar:
        tar.extractall(tmp_path, filter="data")
    script = "import sys; sys.path[:0] = sys.argv[1:]; from machine.isos.machineos import build, recipe; "
    argv = [sys.executable, "-I", "-S", "-B", "-c", script + "print(recipe.digest(), build.__file__)", str(tmp_path)]
    digest, file = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert digest == recipe.digest()
    assert Path(file).is_relative_to(tmp_path)
    compile((tmp_path / "build.py").read_text(encoding="utf-8"), "build.py", "exec")

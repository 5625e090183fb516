"""The wheel and the sdist hold the checkout's files, and the wheel works without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
# Folder of the checkout -> folder of the wheel (pyproject.toml, package-dir).
FOLDERS = {
    "machine": "machine",
    "drivers": "machine/drivers",
    "templates": "machine/templates",
    "isos": "machine/isos",
}
# What a wheel has beside the packages: its own papers, and the man pages.
BESIDE = re.compile(r"^[^/]+\.(dist-info|data)/")

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""


def run(*argv: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def in_checkout() -> list[str]:
    """The files that are tracked, or would be: what git doesn't ignore."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate").splitlines()
    return [file for file in files if (ROOT / file).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: a build leaves folders in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for file in in_checkout():
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, target)
    return folder


def build(checkout: Path, what: str, folder: Path) -> Path:
    return folder / run(sys.executable, "-c", BUILD, what, folder, cwd=checkout).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(checkout, "wheel", tmp_path_factory.mktemp("wheel"))


def expected(prefixes: dict[str, str]) -> set[str]:
    """The files of the packages, as they are called elsewhere."""
    found = set()
    for file in in_checkout():
        top, _, rest = file.partition("/")
        if top in prefixes and rest:
            found.add(f"{prefixes[top]}/{rest}")
    return found


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/") and not BESIDE.search(name)}
    assert inside == expected(FOLDERS)


def test_the_wheel_brings_a_man_page_for_each_verb(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        data = {name.partition(".data/data/")[2] for name in archive.namelist() if ".data/" in name}
    assert data == {f"share/man/man1/{page.name}" for page in (ROOT / "docs" / "man").glob("*.1")}
    assert len(data) > 30


def test_the_wheel_has_one_name_at_the_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {PurePosixPath(name).parts[0] for name in archive.namelist()}
        license_files = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"machine"}
    assert len(license_files) == 1


def test_scripts_stay_executable_in_the_wheel(wheel: Path) -> None:
    lost = []
    with zipfile.ZipFile(wheel) as archive:
        for file in in_checkout():
            top, _, rest = file.partition("/")
            if top in FOLDERS and rest and os.access(ROOT / file, os.X_OK):
                mode = archive.getinfo(f"{FOLDERS[top]}/{rest}").external_attr >> 16
                if not mode & 0o100:
                    lost.append(file)
    assert lost == []


def test_the_sdist_holds_all_that_builds_the_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build(checkout, "sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    inside = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    wanted = expected({folder: folder for folder in FOLDERS}) | {"pyproject.toml", "README.md", "LICENSE"}
    assert wanted - inside == {file for file in ("README.md",) if not (ROOT / file).exists()}
    again = build(source, "wheel", tmp_path)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    # What we need is lent by the environment that runs the tests; without us: its finder, which a .pth file starts, is
    # not read from PYTHONPATH.
    lent = tmp_path / "lent"
    lent.mkdir()
    for entry in Path(pytest.__file__).parents[1].iterdir():
        if not entry.name.startswith(("machine", "__editable__")) and entry.suffix != ".pth":
            (lent / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": str(lent), "MACHINE_STORAGE_PATH": str(tmp_path / "store")}
    command = tmp_path / "venv" / "bin" / "machine"
    assert "create" in run(command, "--help", cwd=tmp_path, env=environment)
    assert (tmp_path / "venv" / "share" / "man" / "man1" / "machine-create.1").exists()
    assert "--qemu-accelerator" in run(command, "create", "--help-all", cwd=tmp_path, env=environment)
    code = (
        "import machine, machine.isos.machineos; from machine import registry, render; "
        "print(machine.__file__); print(*[registry.load(name).name for name in registry.names()]); "
        "print(render.render('seed/meta-data.yaml.j2', instance_id='u', hostname='dev'))"
    )
    file, drivers, *_ = run(python, "-c", code, cwd=tmp_path, env=environment).splitlines()
    assert Path(file).is_relative_to(site)
    assert "qemu" in drivers.split()

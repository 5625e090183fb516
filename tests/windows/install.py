"""Making the rig: Wine's prefix, a CPython for Windows in it, the shims, the stand-in, and the project with its needs.

What is done isn't done again: each part leaves a stamp with a digest of what it was made from. Python for Windows is
of the minor version that runs this, whose standard library it takes; its DLLs are those of python.org, which the wheel
of panda3d has. Packages come from the index that pip is configured for, by .ci/requirements.lock.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from tests.windows.rig import Amiss, Rig

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRANSCRIPTS = HERE.parent / "data" / "virtualbox"
LOCK = ROOT / ".ci" / "requirements.lock"
PANDA3D = "panda3d==1.10.16"
MINOR = f"{sys.version_info.major}{sys.version_info.minor}"
# Seconds, for each command: downloads of 80 MB, on a host that others use.
DEADLINE = 300.0
IN_ALL = 900.0
# What click and pytest need on Windows only: pip goes by this system's markers.
FOR_WINDOWS = ("colorama",)
FOR_TESTS = ("docker", "hypothesis", "pytest", "pytest-timeout", "pyyaml", "setuptools")
# Wine has its own of the first; Wine 8 lacks what the last asks for, and Python does without.
_UNWANTED = re.compile(r"api-ms-win.*|ucrtbase\.dll|_wmi\.pyd", re.IGNORECASE)
_AT_TOP = re.compile(r"python3\d*\.dll|vcruntime.*\.dll", re.IGNORECASE)
_IN_DLLS = re.compile(r".*\.pyd|lib(crypto|ssl|ffi).*\.dll|sqlite3\.dll|zlib1\.dll", re.IGNORECASE)
_NOT_FOR_WINDOWS = ("__pycache__", "lib-dynload", "site-packages", "dist-packages", "test", "idlelib", "_sysconfig*")
_EXPORT = re.compile(r"^\t\[ *\d+\] (?:\+base\[ *\d+\] *[0-9a-f]* )?(_?Py\w*)$", re.MULTILINE)


def install(rig: Rig) -> None:
    """Make what isn't there, or was made from something else. Raises Amiss."""
    rig.folder.mkdir(parents=True, exist_ok=True)
    rig.guests.mkdir(exist_ok=True)
    parts: list[tuple[str, Sequence[object], Callable[[Rig], None]]] = [
        ("prefix", [_said("wine", "--version")], _make_prefix),
        ("python", [PANDA3D, sys.version], _make_python),
        ("shims", [*(HERE / "shims").iterdir(), sys.version], _make_shims),
        ("stand-in", [*(HERE / "stand_in").glob("*.*"), *TRANSCRIPTS.iterdir(), sys.executable], _make_stand_in),
        ("packages", [*_needs(), LOCK], _make_packages),
        ("project", _project_files(), _make_project),
    ]
    began = time.monotonic()
    for name, inputs, make in parts:
        _once(rig, name, inputs, make)
        if time.monotonic() - began > IN_ALL:
            raise Amiss(f"it took more than {IN_ALL:.0f} s to make it")
    told = rig.python("-c", "import ssl, ctypes, sqlite3, sys; print(sys.platform, *sys.version_info[:2])", code=None)
    if told.out.split() != ["win32", *map(str, sys.version_info[:2])]:
        raise Amiss(f"Python doesn't start under Wine: {told}")


def _once(rig: Rig, name: str, inputs: Sequence[object], make: Callable[[Rig], None]) -> None:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for one in inputs:
        digest.update(f"\0{one}\0".encode())
        if isinstance(one, Path):
            digest.update(one.read_bytes())
    stamp = rig.folder / f"{name}.stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest.hexdigest():
        return
    stamp.unlink(missing_ok=True)
    make(rig)
    stamp.write_text(digest.hexdigest(), encoding="utf-8")


def _said(*argv: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command prints. Raises Amiss with its last lines."""
    words = [str(word) for word in argv]
    # Plain files: Wine's server lives on, and would keep pipes open. It has nothing from us but these.
    with tempfile.TemporaryFile() as file:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=DEADLINE,
                check=False,
                env=env,
                cwd=cwd,
            )
        except subprocess.TimeoutExpired as error:
            raise Amiss(f"no end within {DEADLINE:.0f} s: {' '.join(words)}") from error
        file.seek(0)
        text = file.read().decode("utf-8", "replace")
    if done.returncode != 0:
        raise Amiss(f"exit code {done.returncode}: {' '.join(words)}\n{text[-2000:]}")
    return text


def _make_prefix(rig: Rig) -> None:
    shutil.rmtree(rig.prefix, ignore_errors=True)
    for words in (("wine", "wineboot", "-i"), ("wine", "winecfg", "-v", "win10"), ("wineserver", "-w")):
        # The server writes the version, and only when it ends.
        _said(*words, env=rig.environment())
    if not re.search(
        r'"CurrentBuild"="1\d{4}"', (rig.prefix / "system.reg").read_text(encoding="utf-8", errors="replace")
    ):
        raise Amiss("Wine's prefix isn't Windows 10")


def _make_python(rig: Rig) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    folder = rig.python_folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(library, folder / "Lib", ignore=shutil.ignore_patterns(*_NOT_FOR_WINDOWS))
    (folder / "Lib" / "site-packages").mkdir(exist_ok=True)
    (folder / "DLLs").mkdir()
    with tempfile.TemporaryDirectory() as downloads:
        _pip("download", "--no-deps", "--dest", downloads, *_for_windows(), PANDA3D)
        [wheel] = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                _unpack(archive, PurePosixPath(member), folder)
    if not (folder / f"python{MINOR}.dll").exists():
        raise Amiss(f"{PANDA3D} has no python{MINOR}.dll")
    _mend(folder / "Lib" / "importlib" / "metadata" / "__init__.py")


def _unpack(archive: zipfile.ZipFile, member: PurePosixPath, folder: Path) -> None:
    if member.parent.name != "deploy_libs" or _UNWANTED.fullmatch(member.name):
        return
    if _AT_TOP.fullmatch(member.name):
        (folder / member.name).write_bytes(archive.read(str(member)))
    elif _IN_DLLS.fullmatch(member.name):
        (folder / "DLLs" / member.name).write_bytes(archive.read(str(member)))


def _mend(metadata: Path) -> None:
    """3.12.1 lacks a decorator, without which no installed distribution is found."""
    text = metadata.read_text(encoding="utf-8")
    lacking = r"(?<!@classmethod\n)( +)def invalidate_caches\(cls\)"
    metadata.write_text(re.sub(lacking, r"\1@classmethod\n\1def invalidate_caches(cls)", text), encoding="utf-8")


def _make_shims(rig: Rig) -> None:
    shims, folder = HERE / "shims", rig.python_folder
    resources = rig.folder / "manifest.o"
    _said("x86_64-w64-mingw32-windres", "-I", shims, "-O", "coff", shims / "python.rc", resources)
    dll = f'-DPYTHON_DLL=L"python{MINOR}.dll"'
    _compile("-municode", dll, "-o", folder / "python.exe", shims / "python.c", resources)
    # python3.dll, the stable ABI, hands everything on.
    names = sorted(set(_EXPORT.findall(_said("x86_64-w64-mingw32-objdump", "-p", folder / f"python{MINOR}.dll"))))
    if len(names) < 1000:
        raise Amiss(f"the names that python{MINOR}.dll exports can't be read")
    exports = rig.folder / "python3.def"
    lines = ["LIBRARY python3.dll", "EXPORTS", *(f"{name} = python{MINOR}.{name}" for name in names)]
    exports.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _compile("-shared", "-nostdlib", "-nostartfiles", "-Wl,-e,0", "-o", folder / "python3.dll", exports)
    system = rig.prefix / "drive_c" / "windows" / "system32"
    _compile("-shared", "-o", system / "bcryptprimitives.dll", shims / "bcryptprimitives.c", "-ladvapi32")
    # Beside python.exe: CreateProcess looks there first.
    _compile("-o", folder / "sc.exe", shims / "sc.c")
    shutil.copy(shims / "sitecustomize.py", folder / "Lib" / "sitecustomize.py")


def _compile(*words: str | Path) -> None:
    _said("x86_64-w64-mingw32-gcc", "-O1", "-Wall", "-Wno-unused-parameter", "-s", *words)


def _make_stand_in(rig: Rig) -> None:
    source = HERE / "stand_in"
    programs = rig.prefix / "drive_c" / "Program Files"
    folder = programs / "Oracle" / "VirtualBox"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _compile("-municode", "-o", folder / "VBoxManage.exe", source / "program.c")
    for name in ("vboxmanage", "vm_state", "vm_texts", "recorded"):
        shutil.copy(source / f"{name}.py", folder)
    shutil.copytree(TRANSCRIPTS, folder / "transcripts")
    docker = programs / "Docker"
    docker.mkdir(exist_ok=True)
    shutil.copy(folder / "VBoxManage.exe", docker / "docker.exe")
    shutil.copy(source / "docker_exe.py", docker / "docker.py")
    # The guests run on this side, with this Python's packages.
    guest = rig.folder / "guest"
    guest.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -P "{source / "guest.py"}" "$@" "{rig.guests}"\n', encoding="utf-8"
    )
    guest.chmod(0o755)
    (folder / "guest.path").write_text(str(guest), encoding="utf-8")


def _pip(*words: str | Path) -> None:
    _said(sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check", cwd=ROOT)


def _for_windows() -> list[str]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return ["--platform", "win_amd64", "--python-version", version, "--only-binary", ":all:"]


def _needs() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *FOR_WINDOWS, *FOR_TESTS]


def _make_packages(rig: Rig) -> None:
    site = rig.python_folder / "Lib" / "site-packages"
    shutil.rmtree(site)
    (rig.folder / "project.stamp").unlink(missing_ok=True)
    _pip("install", "--no-compile", "--target", site, *_for_windows(), "--constraint", LOCK, *_needs())


def _project_files() -> list[Path]:
    """What the wheel is made from."""
    folders = ("machine", "drivers", "templates", "isos", "docs/man")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    return [ROOT / "pyproject.toml", *(path for path in found if "__pycache__" not in path.parts)]


def _make_project(rig: Rig) -> None:
    site = rig.python_folder / "Lib" / "site-packages"
    with tempfile.TemporaryDirectory() as work:
        # setuptools writes into the tree that it builds.
        tree = Path(work) / "tree"
        for file in [*_project_files(), ROOT / "README.md", ROOT / "LICENSE"]:
            copy = tree / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", work, tree)
        [wheel] = Path(work).glob("*.whl")
        # Another version's metadata would stay, and its entry points with it.
        for old in site.glob(f"{wheel.name.partition('-')[0]}-*.dist-info"):
            shutil.rmtree(old)
        _pip("install", "--no-compile", "--no-deps", "--upgrade", "--target", site, *_for_windows(), wheel)

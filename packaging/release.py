"""make release: what a release publishes, in dist/ (nothing else is changed):

    machineos-ARCH.iso, .json   the ISO for each architecture, and its manifest
    SHA256SUMS                  of the ISOs
    machine_vm-*.whl            the program, which pins these ISOs
    machine_vm_machineos_*.whl  each ISO as a package, for networks that reach an index of packages only
    machine.rb, machine.json    with --url: a formula for Homebrew and a manifest for Scoop, which install that wheel

python packaging/release.py [--url URL]... [--iso FILE]... [--output DIR]: URL is a folder that the ISOs will be in,
FILE an ISO to take in place of building it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
# What the wheel is made of.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "machine", "drivers", "templates", "isos", "docs")
ARCHITECTURES = ("x86_64", "aarch64")
MANIFESTS = ("machine.rb", "machine.json")
PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
description = "machineos for {architecture}: the operating system of machine's virtual machines"
requires-python = ">=3.11"

[project.entry-points."machine.images"]
{architecture} = "{package}:path"

[tool.setuptools]
packages = ["{package}"]

[tool.setuptools.package-data]
{package} = ["*.iso"]
"""
MODULE = '''\
"""The ISO of machineos for {architecture} processors."""

from pathlib import Path


def path() -> Path:
    return Path(__file__).with_name("{file}")
'''


def main() -> None:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").rpartition("\n\n")[2])
    parser.add_argument("--url", action="append", default=[])
    parser.add_argument("--iso", action="append", type=Path, default=[])
    parser.add_argument("--output", type=Path, default=HERE / "dist")
    asked = parser.parse_args()
    output = asked.output.absolute()
    if output == HERE / "dist":
        shutil.rmtree(output, ignore_errors=True)
    elif output.exists() and any(output.iterdir()):
        parser.error(f"{output} has something in it already")
    output.mkdir(parents=True, exist_ok=True)
    for iso in asked.iso:
        shutil.copy(iso, output)
    if not asked.iso:
        for architecture in ARCHITECTURES:
            _run(sys.executable, "-m", "machine", "iso", "build", "--arch", architecture, "-o", output)
    digests = {iso.name: _digest(iso) for iso in sorted(output.glob("machineos-*.iso"))}
    lines = [f"{digest}  {name}\n" for name, digest in digests.items()]
    (output / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        program = _program(Path(folder) / "program", asked.url, digests, output)
        version = program.name.split("-")[1]
        if asked.url:
            _manifests(program, version, asked.url[0].rstrip("/"), output)
        for name in digests:
            _image(Path(folder) / name, output / name, version, output)
    print(_told(output, digests, program.name))


def _program(folder: Path, urls: list[str], digests: dict[str, str], output: Path) -> Path:
    """The wheel of what is checked out, with the digests in it."""
    for name in SOURCES:
        if (HERE / name).is_dir():
            shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(HERE / name, folder)
    pins = json.dumps({"urls": urls, "sha256": digests}, indent=2)
    (folder / "isos/release.json").write_text(pins + "\n", encoding="utf-8")
    _wheel(folder, output)
    return next(output.glob("machine_vm-*.whl"))


def _manifests(program: Path, version: str, url: str, output: Path) -> None:
    """What package managers install the program by, from the folder that the release will be in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    facts = {"version": version, "url": url, "wheel": program.name, "sha256": _digest(program)}
    templates = Environment(
        loader=FileSystemLoader(HERE / "packaging/templates"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    for name in MANIFESTS:
        text = templates.get_template(f"{name}.j2").render(facts)
        (output / name).write_text(text, encoding="utf-8")


def _image(folder: Path, iso: Path, version: str, output: Path) -> None:
    """The wheel that holds an ISO."""
    architecture = iso.stem.removeprefix("machineos-")
    package = f"machine_vm_machineos_{architecture}"
    (folder / package).mkdir(parents=True)
    shutil.copy(iso, folder / package)
    about = {"architecture": architecture, "package": package, "version": version, "file": iso.name}
    about["name"] = package.replace("_", "-")
    (folder / package / "__init__.py").write_text(MODULE.format(**about), encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT.format(**about), encoding="utf-8")
    _wheel(folder, output)


def _wheel(folder: Path, output: Path) -> None:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    _run(*pip, "--wheel-dir", output, folder)


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(output: Path, digests: dict[str, str], program: str) -> str:
    sizes = "\n".join(f"    {path.name}  {path.stat().st_size / 1e6:.1f} MB" for path in sorted(output.iterdir()))
    return f"""\
In {output}:

{sizes}

Upload {", ".join([*digests, "SHA256SUMS"])} to one folder of a web server, and the wheels to an index of packages.
{_told_of_manifests(output, program)}\
{program} pins the digests of these ISOs. Without --url it knows no server: users name it, MACHINE_IMAGES_URL=URL."""


def _told_of_manifests(output: Path, program: str) -> str:
    if not all((output / name).exists() for name in MANIFESTS):
        return ""
    return f"""\
machine.rb (Homebrew, in a tap) and machine.json (Scoop, in a bucket) expect {program} in the folder of --url, too.
"""


if __name__ == "__main__":
    main()

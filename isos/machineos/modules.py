"""Installs kernel modules with their dependencies, uncompressed, and the indexes that modprobe reads."""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from machine.run import run

from . import patience

# Indexes that depmod reads or writes, and modprobe doesn't need.
INPUTS = ("modules.order", "modules.symbols", "modules.symbols.bin", "modules.builtin.modinfo")
DEPENDS = re.compile(rb"\0(?:depends|softdep)=([^\0]+)")


def kernel_version(packages: Path) -> str:
    """The kernel's version, say 6.12.38+deb13-amd64, from the unpacked packages."""
    return next((packages / "usr/lib/modules").iterdir()).name


def install(packages: Path, root: Path, wanted: Iterable[str]) -> None:
    """Copy the wanted modules into a root, uncompressed: they load faster, and the root is compressed anyway."""
    version = kernel_version(packages)
    source, target = (base / "usr/lib/modules" / version for base in (packages, root))
    target.mkdir(parents=True, exist_ok=True)
    for path, data in select(source, wanted).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path.removesuffix(".xz")).write_bytes(data)
    for index in source.glob("modules.*"):
        (target / index.name).write_bytes(index.read_bytes())
    # depmod reads lib/modules. It lies in sbin, which an ordinary user's PATH may lack.
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    run(["depmod", "-b", root, version], env={"PATH": path}, timeout=patience.WRITE)
    for name in INPUTS:
        (target / name).unlink(missing_ok=True)


def select(source: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The wanted modules and those they depend on: path below source -> contents."""
    paths = {name_of(path): path for path in sorted(source.rglob("*.ko*"))}
    names = [name for pattern in wanted for name in matching(pattern, paths, source)]
    chosen: dict[str, bytes] = {}
    while names:
        path = paths.get(names.pop())
        if path is None or (key := str(path.relative_to(source))) in chosen:
            continue
        chosen[key] = contents(path)
        names += dependencies(chosen[key])
    return dict(sorted(chosen.items()))


def matching(pattern: str, paths: dict[str, Path], source: Path) -> list[str]:
    if "/" not in pattern:
        return [pattern.replace("-", "_")]
    below = f"kernel/{pattern}.ko*"
    return [name for name, path in paths.items() if fnmatchcase(str(path.relative_to(source)), below)]


def name_of(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def contents(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def dependencies(module: bytes) -> list[str]:
    """The names in a module's depends= and softdep= lines."""
    found = b" ".join(DEPENDS.findall(module)).decode().replace("pre:", " ").replace("post:", " ")
    return [name.replace("-", "_") for name in re.split(r"[,\s]+", found) if name]

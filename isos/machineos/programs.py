"""Compiles the guest's own programs in C (src/) with the headers and libraries of its packages."""

from __future__ import annotations

from pathlib import Path

from machine import resources
from machine.errors import ToolMissing
from machine.run import run, which

from . import patience
from .lists import HERE

SOURCES = HERE / "src"
FLAGS = ("-std=gnu17", "-O2", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
LINK = ("-s", "-Wl,-z,relro,-z,now", "-Wl,--as-needed")
LIBRARIES = ("-lssl", "-lcrypto")


def compiler(arch: str) -> str:
    """The path of the compiler for an architecture, native or cross. Raises ToolMissing."""
    if found := which(f"{arch}-linux-gnu-gcc"):
        return found
    package = "gcc" if arch == resources.architecture() else f"gcc-{arch.replace('_', '-')}-linux-gnu"
    raise ToolMissing(f"{arch}-linux-gnu-gcc", hint=f"sudo apt install {package}")


def make(packages: Path, folder: Path, *, arch: str) -> None:
    """Compile each src/NAME.c to folder/NAME. packages: the folder of the unpacked packages. Raises ToolFailed."""
    guest = toolchain(packages, arch)
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.c")):
        # Give the source's name without its folder, so that the program holds no path of this host.
        argv = [*guest, *FLAGS, "-fPIE", source.name, "-o", str(folder / source.stem), "-pie", *LINK, *LIBRARIES]
        run(argv, cwd=SOURCES, timeout=patience.COMPILE)


def make_libraries(packages: Path, folder: Path, *, arch: str) -> None:
    """Compile each src/libraries/NAME.c, with the versions in NAME.map, to folder/NAME. Raises ToolFailed."""
    guest = toolchain(packages, arch)
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted((SOURCES / "libraries").glob("*.c")):
        name = source.stem
        shared = ["-shared", "-nostdlib", f"-Wl,-soname,{name}", f"-Wl,--version-script={name}.map"]
        argv = [*guest, *FLAGS, "-fPIC", *shared, source.name, "-o", str(folder / name), *LINK]
        run(argv, cwd=source.parent, timeout=patience.COMPILE)


def toolchain(packages: Path, arch: str) -> list[str]:
    """The compiler with the options that make it use the guest's headers and libraries. Raises ToolMissing."""
    gcc = compiler(arch)
    for name in ("lib", "lib64"):  # linker scripts name these paths; packages lie in usr
        link = packages / name
        # On arm64 there is no usr/lib64: the link leads nowhere, and must not be made twice.
        if not link.exists() and not link.is_symlink():
            link.symlink_to(f"usr/{name}")
    # Without -B a native compiler would use this host's libraries.
    return [gcc, f"--sysroot={packages}", f"-B{packages}/usr/lib/{arch}-linux-gnu"]

"""Builds the ISO of machineos: packages -> root, initrd -> ISO, manifest.

Runs on Debian 12 and later and on Ubuntu, as any user, with mmdebstrap, gcc, mksquashfs, xorriso, mtools, depmod and
zstd.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine.errors import Usage
from machine.run import run

from . import cpio, iso, modules, packages, patience, programs, recipe, root
from .lists import HERE, entries
from .manifest import Manifest, digest

CONSOLE = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
# quiet: writing the kernel's lines to an emulated serial port takes too long.
CMDLINE = "console={console} quiet loglevel=4 panic=10 random.trust_cpu=on memhp_default_state=online"


def cmdline(arch: str = "x86_64") -> str:
    """The kernel command line for booting kernel and initrd directly."""
    return CMDLINE.format(console=CONSOLE[arch])


def build(out: Path, *, arch: str = "x86_64", work: Path | None = None, say: Callable[[str], None]) -> Manifest:
    """Write the ISO to out and its manifest beside it (.json).

    work: the folder for intermediate files (1.5 GiB), a temporary one if None. say is called with each step's name.
    Raises ToolMissing, ToolFailed, and Usage for an unknown architecture.
    """
    if arch not in CONSOLE:
        raise Usage(f"machineos can't be built for {arch}", hint=f"choose one of {', '.join(CONSOLE)}")
    if work is None:
        with tempfile.TemporaryDirectory(prefix="machineos-") as folder:
            return build(out, arch=arch, work=Path(folder), say=say)
    programs.compiler(arch)  # fail here if it is missing, not after minutes of work
    unpacked, tree = fresh(work / "packages"), fresh(work / "iso")
    say("fetching packages")
    versions = packages.fetch(arch, work / "packages.tar")
    say("unpacking packages")
    time = packages.unpack(work / "packages.tar", unpacked)
    say("making the root")
    make_root(unpacked, fresh(work / "root"), tree, time, arch)
    say("making the initrd")
    make_initrd(unpacked, fresh(work / "initrd"), tree, time)
    write_about(tree / "machineos/about.json", arch, version_of(time))
    say("writing the ISO")
    iso.make(tree, unpacked, work / "machineos.iso", arch=arch, cmdline=f"console=tty0 {cmdline(arch)}", time=time)
    return publish(work / "machineos.iso", out, arch, version_of(time), modules.kernel_version(unpacked), versions)


def fresh(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def version_of(time: int) -> str:
    """The version of machineos: the day of its newest file, for example 2025.11.17. time: seconds since 1970."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time, UTC).strftime("%Y.%m.%d")


def write_about(path: Path, arch: str, version: str) -> None:
    """Write the facts that a host needs to boot this ISO without its boot loader."""
    facts = {
        "architecture": arch,
        "version": version,
        "command_line": cmdline(arch),
        "clones": True,
        "containers": True,
        "recipe": recipe.digest(),
    }
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_root(unpacked: Path, folder: Path, tree: Path, time: int, arch: str) -> None:
    root.make(unpacked, folder, arch=arch, version=version_of(time), suite=packages.SUITE)
    (tree / "machineos").mkdir()
    root.pack(folder, tree / "machineos/rootfs.squashfs", time=time)


def make_initrd(unpacked: Path, folder: Path, tree: Path, time: int) -> None:
    """Write kernel and initrd to the paths where hosts look for them: /boot/vmlinuz and /boot/initrd.img."""
    boot = tree / "boot"
    boot.mkdir()
    version = modules.kernel_version(unpacked)
    shutil.copy(unpacked / f"boot/vmlinuz-{version}", boot / "vmlinuz")
    (folder / "bin").mkdir()
    shutil.copy(unpacked / "usr/bin/busybox", folder / "bin/busybox")
    shutil.copy(HERE / "initrd/init", folder / "init")
    (folder / "init").chmod(0o755)
    modules.install(unpacked, folder, entries("initrd-modules.list"))
    for index in folder.glob("usr/lib/modules/*/modules.*"):
        # Busybox reads only these two indexes.
        if index.name not in ("modules.dep", "modules.alias"):
            index.unlink()
    (folder.parent / "initrd.cpio").write_bytes(cpio.archive(folder, time=time))
    run(
        ["zstd", "-19", "-q", "-f", folder.parent / "initrd.cpio", "-o", boot / "initrd.img"], timeout=patience.COMPRESS
    )


def publish(made: Path, out: Path, arch: str, version: str, kernel: str, versions: dict[str, str]) -> Manifest:
    manifest = Manifest(arch, version, kernel, versions, sha256=digest(made), size=made.stat().st_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.copyfile(made, partial)
    manifest.write(out.with_suffix(".json"))
    partial.replace(out)
    return manifest

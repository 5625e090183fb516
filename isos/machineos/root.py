"""Makes the root file system, a squashfs: some files of the packages, and our own files, which win."""

from __future__ import annotations

import shutil
from pathlib import Path

from machine.run import run

from . import elf, exports, modules, patience, programs
from .lists import HERE, entries, is_kept, words

# mmdebstrap loses the setuid bit when an ordinary user runs it.
SETUID = ("usr/bin/sudo",)
FOLDERS = ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "home", "opt", "srv", "var/lib", "var/log", "var/tmp")
OS_RELEASE = """\
NAME=machineos
ID=machineos
ID_LIKE=debian
VERSION_ID={version}
PRETTY_NAME="machineos {version} (Debian {suite})"
"""


def make(packages: Path, root: Path, *, arch: str, version: str, suite: str) -> None:
    """Fill the folder root from the unpacked packages and from the files beside this module."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for link in entries("links.list"):
        make_link(root, *link.split())
    copy_kept(packages, root)
    for path in sorted(root.glob("usr/*bin/*")):
        if path.is_file() and not path.is_symlink():
            exports.empty(path)
    for program in SETUID:
        (root / program).chmod(0o4755)
    programs.make(packages, root / "usr/lib/machineos", arch=arch)
    programs.make_libraries(packages, root / f"usr/lib/{arch}-linux-gnu", arch=arch)
    copy_libraries(packages, root)
    for applet in words("applets.list"):
        make_link(root, f"usr/bin/{applet}", "busybox")
    modules.install(packages, root, entries("modules.list"))
    install_authorities(packages, root)
    (root / "etc/os-release").write_text(OS_RELEASE.format(version=version, suite=suite), encoding="utf-8")
    motd = f"machineos {version}: a Docker host. What lies in /home and in Docker lasts.\n"
    (root / "etc/motd").write_text(motd, encoding="utf-8")
    copy_ours(HERE / "rootfs", root)


def make_link(root: Path, where: str, target: str) -> None:
    link = root / where
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() and not link.exists():
        link.symlink_to(target)


def copy_kept(packages: Path, root: Path) -> None:
    patterns = entries("files.list")
    for path in sorted(packages.rglob("*")):
        name = str(path.relative_to(packages))
        if (path.is_symlink() or path.is_file()) and is_kept(name, patterns):
            copy(path, root / name)


def copy_libraries(packages: Path, root: Path) -> None:
    """Copy the libraries that the programs in root need, and the libraries that these need."""
    folders = [*(packages / "usr/lib").glob("*-linux-gnu*"), packages / "usr/lib64", packages / "usr/lib"]
    waiting = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    while waiting:
        for name in elf.needed(waiting.pop()):
            source = next((folder / name for folder in folders if (folder / name).exists()), None)
            if source and not (target := root / source.relative_to(packages)).is_symlink() and not target.exists():
                copy(source, target)
                waiting += follow(source, packages, root)


def follow(path: Path, packages: Path, root: Path) -> list[Path]:
    """Copy the target of a symbolic link; return the path of the copy in root."""
    real = path.resolve()
    target = root / real.relative_to(packages.resolve())
    if path.is_symlink() and not target.exists():
        copy(real, target)
    return [target]


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def copy_ours(source: Path, root: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = root / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.write_bytes(path.read_bytes())
            # Don't use the checkout's mode: a wheel or a strict umask may have changed it.
            target.chmod(0o755 if target.read_bytes().startswith(b"#!") else 0o644)


def install_authorities(packages: Path, root: Path) -> None:
    """Write the CA certificates into one bundle, as Debian's update-ca-certificates does."""
    certificates = sorted((packages / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "usr/share/machineos/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    make_link(root, "etc/ssl/certs/ca-certificates.crt", "/usr/share/machineos/ca-certificates.crt")


def pack(root: Path, squashfs: Path, *, time: int) -> None:
    """Pack a folder as a squashfs owned by root. Equal contents give equal bytes. time: seconds since 1970."""
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    options = ["-comp", "zstd", "-Xcompression-level", "19", "-b", "1M", "-noappend", "-all-root", "-no-xattrs"]
    times = ["-mkfs-time", str(time), "-all-time", str(time)]
    run(["mksquashfs", root, squashfs, *options, *times, "-quiet", "-no-progress"], timeout=patience.COMPRESS)

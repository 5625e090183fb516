"""Fetches and unpacks Debian's packages. It runs none of their programs, so it works for every architecture."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from urllib.parse import unquote

from machine.run import run

from . import patience
from .lists import packages

SUITE = "trixie"
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}

DEB = re.compile(r"\./var/cache/apt/archives/(?P<name>[^_/]+)_(?P<version>[^_/]+)_[^_/]+\.deb")
UNWANTED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/perl/", "var/", "dev/")


def fetch(arch: str, tar: Path) -> dict[str, str]:
    """Write the files of our packages and of their dependencies to a tar; return name -> version."""
    # "chrootless" needs neither root nor user namespaces, and "extract" runs none of the packages' scripts.
    argv = ["mmdebstrap", "--mode=chrootless", "--variant=extract", "--format=tar"]
    argv += ["--skip=check/chrootless,cleanup/apt/cache", f"--architectures={DEBIAN[arch]}"]
    run([*argv, f"--include={','.join(packages(arch))}", SUITE, tar], timeout=patience.DOWNLOAD)
    with tarfile.open(tar) as archive:
        found = (DEB.fullmatch(name) for name in archive.getnames())
        return dict(sorted((deb["name"], unquote(deb["version"])) for deb in found if deb))


def unpack(tar: Path, folder: Path) -> int:
    """Unpack all except documentation and the like into a folder; return the time of the newest file (Unix time)."""
    newest = 0
    with tarfile.open(tar) as archive:
        for member in archive:
            member.name = member.name.removeprefix("./")
            if member.name.startswith(UNWANTED) or member.isdev():
                continue
            if member.isfile() and member.name.startswith("usr/"):
                newest = max(newest, int(member.mtime))
            unpack_member(archive, member, folder)
    return newest


def unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    target = folder / member.name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(folder / member.linkname)
    elif source := archive.extractfile(member):
        target.write_bytes(source.read())
        target.chmod(member.mode)

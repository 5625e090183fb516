"""The image that a text refers to: one in the cache, a cloud image of isos/catalog.toml, a file, a URL with a
digest."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as package_files
from pathlib import Path

from machine import files, paths, resources
from machine.errors import ImageCorrupt, NoSuchImage
from machine.images import cache, disks, downloads, machineos
from machine.images.cache import ImageInfo
from machine.images.downloads import Source
from machine.progress import Progress
from machine.switches import is_on

OFFLINE_VARIABLE = "MACHINE_OFFLINE"
# The bytes at offset 510 of a disk with a boot sector.
_BOOT_SECTOR = b"\x55\xaa"


@dataclass(frozen=True)
class Entry:
    """A cloud image of the catalog, for one architecture."""

    name: str
    user: str
    format: str
    source: Source


def entries(architecture: str | None = None) -> list[Entry]:
    """The images of the catalog for a processor, by default this host's."""
    wanted = architecture or resources.architecture()
    text = package_files("machine.isos").joinpath("catalog.toml").read_text(encoding="utf-8")
    return [
        Entry(name, about["user"], about["format"], downloads.source(about[wanted]))
        for name, about in tomllib.loads(text).items()
        if wanted in about
    ]


def obtain(text: str, progress: Progress, *, offline: bool = False, architecture: str = "") -> ImageInfo:
    """The image that text refers to; it is downloaded if necessary, and in the cache afterwards.

    architecture: of its processors, this host's when none is given. Raises Usage for a URL without a digest,
    NoSuchImage, ImageCorrupt, MachineError when the download fails.
    """
    if "://" in text:
        wanted = downloads.source(text)
        return cached(wanted) or _pull(wanted, _stem(wanted.name), progress, offline, architecture)
    path = paths.expanded(text)
    if len(path.parts) > 1 or path.suffix in {".iso", ".img", ".qcow2", ".raw"}:
        return take(path, say=progress.note, architecture=architecture)
    if text == machineos.NAME:
        from machine.images import release

        return release.obtain(progress, offline=offline or is_offline(), architecture=architecture)
    known = entries(architecture)
    for entry in known:
        if entry.name == text:
            return cached(entry.source) or _pull(entry.source, entry.name, progress, offline, architecture)
    try:
        return cache.find(text, architecture)
    except NoSuchImage as error:
        error.details = f"the catalog has {', '.join(entry.name for entry in known)}"
        raise


def take(
    path: Path,
    name: str = "",
    *,
    named: bool = True,
    say: Callable[[str], None] = lambda text: None,
    architecture: str = "",
) -> ImageInfo:
    """Add a file to the cache: a machineos ISO, or a disk (qcow2 or raw) that needs no other file.

    named: whether the name refers to this image from now on. say is called when this waits for another command.
    architecture: of a disk's processors, which the file doesn't tell; this host's when none is given.
    """
    if path.suffix == ".iso":
        return cache.find(machineos.add(path, say=say).digest)
    if not path.is_file():
        raise NoSuchImage(f"there is no file {path}", hint="machine image ls")
    kind = _format(path)
    about = ImageInfo(
        name=name or _stem(path.name),
        digest=cache.digest(path),
        architecture=architecture or resources.architecture(),
        format=kind,
        size=path.stat().st_size,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cache.add(path, about, named=named, say=say)
    return about


def is_offline() -> bool:
    return is_on(OFFLINE_VARIABLE)


def _pull(wanted: Source, name: str, progress: Progress, offline: bool, architecture: str) -> ImageInfo:
    if offline or is_offline():
        raise NoSuchImage(
            f"the image {name} isn't in the cache, and --offline forbids a download", hint=f"machine image pull {name}"
        )
    progress.phase(f"fetching {name}")
    with downloads.fetched(wanted, paths.images(), downloads.teller(name, progress), progress.note) as path:
        progress.phase(f"adding {name} to the cache")
        about = take(path, name, say=progress.note, architecture=architecture)
    files.write(_note(wanted), about.digest + "\n")
    return about


def cached(wanted: Source) -> ImageInfo | None:
    """The cached image that was downloaded from there. Its publisher's digest may be no SHA-256, unlike the cache's."""
    try:
        digest = wanted.digest if wanted.algorithm == "sha256" else _note(wanted).read_text(encoding="utf-8").strip()
        return next((about for about in cache.cached() if about.digest == digest), None)
    except OSError:
        return None


def _note(wanted: Source) -> Path:
    return paths.images() / f".{wanted.algorithm}-{wanted.digest[:40]}"


def _format(path: Path) -> str:
    kind = disks.check_whole(path).format
    with path.open("rb") as file:
        begin = file.read(512)
    if kind == "qcow2" or (kind == "raw" and begin[510:512] == _BOOT_SECTOR):
        return kind
    raise ImageCorrupt(f"{path} is neither a disk (qcow2, raw) nor a machineos ISO", hint="machine iso build")


def _stem(name: str) -> str:
    """debian-12-amd64.qcow2?x=1 -> debian-12-amd64; the result is a valid file name."""
    stem = name.partition("?")[0]
    for suffix in (".qcow2", ".img", ".raw", ".iso"):
        stem = stem.removesuffix(suffix)
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem).strip(".-") or "image"

"""machineos for hosts that don't build it: from an installed package that holds it, or from where it is published.

The wheel of a release pins the digests of its images in isos/release.json, which `make release` fills; a checkout pins
none. A server of the user's own may have others: then its file SHA256SUMS says which, and is believed, because the user
has named the server.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

from machine import config, paths, resources
from machine.errors import CheckFailed, ImageCorrupt, MachineError, NoSuchImage
from machine.images import cache, downloads, machineos
from machine.images.cache import ImageInfo
from machine.images.downloads import Source
from machine.progress import Progress
from machine.reasons import reason

URL_VARIABLE = "MACHINE_IMAGES_URL"
SUMS = "SHA256SUMS"
# The entry points of packages that hold an ISO: its architecture, and what returns its path.
GROUP = "machine.images"
# Bytes: a list of files has a line for each.
_SUMS_LIMIT = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S+)")


@dataclass(frozen=True)
class Release:
    """urls: folders, without a slash at the end; pinned: the SHA-256 of files, {} where none is pinned."""

    urls: tuple[str, ...]
    pinned: dict[str, str]

    @property
    def is_known(self) -> bool:
        return bool(self.urls)


def published() -> Release:
    """Where the machineos of this version lies. Raises Usage for an invalid URL or config.toml."""
    about = json.loads(package_files("machine.isos").joinpath("release.json").read_text(encoding="utf-8"))
    own = os.environ.get(URL_VARIABLE) or config.images_url(paths.store())
    urls = [own] if own else about["urls"]
    return Release(tuple(downloads.check_url(url).rstrip("/") for url in urls), about["sha256"])


def obtain(progress: Progress, *, offline: bool = False, architecture: str = "") -> ImageInfo:
    """machineos for these processors (this host's when none is given), in the cache afterwards.

    What was built here by the recipe of this version comes first, then what this version pins, from the cache, a
    package, or a server; then whatever the cache has. Raises NoSuchImage, ImageCorrupt, MachineError.
    """
    arch = architecture or resources.architecture()
    have = _newest(arch)
    release = published()
    wanted = release.pinned.get(_file(arch), "")
    if have and (have.digest == wanted or not wanted or machineos.is_cached(arch)):
        return have
    if wanted and (there := cache.find_digest(wanted)):
        return there
    # One for another version of this program is none: it would be put into the cache again by each command.
    if (path := _packaged(arch)) and wanted in {"", cache.digest(path)}:
        progress.phase("adding machineos to the cache")
        return _taken(path, arch, progress)
    if not release.is_known or offline:
        if have:
            return have
        raise _absent(arch, release)
    try:
        return _fetched(release, arch, wanted, progress)
    except MachineError as error:
        if not have:
            raise
        progress.note(f"{error.message}; an older machineos is used, of {have.created[:10]}")
        return have


def _newest(architecture: str) -> ImageInfo | None:
    try:
        return cache.find_digest(cache.current(machineos.NAME, architecture).digest)
    except NoSuchImage:
        return None


def _fetched(release: Release, architecture: str, wanted: str, progress: Progress) -> ImageInfo:
    """Download it from the first server that has it."""
    for number, url in enumerate(release.urls, 1):
        try:
            digest = wanted or _listed(url, _file(architecture))
            progress.phase(f"fetching machineos from {url}")
            source = Source(f"{url}/{_file(architecture)}", "sha256", digest)
            with downloads.fetched(
                source, paths.images(), downloads.teller(machineos.NAME, progress), progress.note
            ) as path:
                progress.phase("adding machineos to the cache")
                return _taken(path, architecture, progress)
        except MachineError as error:
            if number == len(release.urls):
                error.details = error.details or f"machineos can also be built: {cache.remedy()}"
                raise
            progress.note(error.message)
    raise AssertionError("a release without a URL isn't fetched")


def _listed(url: str, name: str) -> str:
    """The digest that the server states. Raises MachineError."""
    text = downloads.text(f"{url}/{SUMS}", _SUMS_LIMIT)
    digests = {match[2]: match[1] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
    if name not in digests:
        raise NoSuchImage(f"{url}/{SUMS} lists no {name}", hint="on the server: sha256sum *.iso >SHA256SUMS")
    return digests[name]


def _taken(path: Path, architecture: str, progress: Progress) -> ImageInfo:
    about = cache.find(machineos.add(path, say=progress.note).digest)
    if about.architecture != architecture:
        raise ImageCorrupt(f"this machineos is for {about.architecture} processors, and {architecture} was wanted")
    return about


def _packaged(architecture: str) -> Path | None:
    """The ISO that an installed package holds. Raises CheckFailed where the package is broken."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=architecture):
        try:
            path = Path(entry.load()())
        except Exception as error:  # the package's own
            raise CheckFailed(
                f"the package of machineos can't be used: {reason(error)}", hint="install it anew"
            ) from error
        if path.is_file():
            return path
    return None


def _absent(architecture: str, release: Release) -> NoSuchImage:
    here = architecture == resources.architecture()
    what = f"machineos{'' if here else f' for {architecture} processors'} isn't in the cache"
    if release.is_known:
        hint = f"machine image pull{'' if here else f' --arch {architecture}'} machineos"
        return NoSuchImage(f"{what}, and --offline forbids a download", hint=hint)
    return NoSuchImage(what, hint=cache.remedy(architecture), details=f"{URL_VARIABLE} can name a server that has it")


def _file(architecture: str) -> str:
    return f"{machineos.NAME}-{architecture}.iso"

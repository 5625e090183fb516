"""machineos in the cache of images: built here, or brought as a file."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from machine import files
from machine.errors import ImageCorrupt, NoSuchImage
from machine.images import cache
from machine.images.cache import ImageInfo
from machine.paths import Image
from machine.reasons import reason
from machine.run import which

NAME = "machineos"
# Bytes (ECMA-119, 6.1.2).
SECTOR = 2048
ROOT = "/machineos/rootfs.squashfs"


def is_cached(architecture: str = "") -> bool:
    """Whether the newest machineos of the cache was made by the recipe that this version of machine has.

    architecture: of which processors, this host's when none is given.
    """
    from machine.isos.machineos import recipe

    try:
        image = cache.current(NAME, architecture)
        return image.file.exists() and bool(cache.find(image.digest).recipe == recipe.digest())
    except NoSuchImage:
        return False


def why_not_here() -> str:
    """What keeps this host from building machineos itself, "" if nothing does."""
    if sys.platform != "linux":
        return "machineos can be built on Linux only"
    return "" if which("mmdebstrap") else "mmdebstrap isn't installed"


def build(architecture: str, say: Callable[[str], None], *, output: Path | None = None) -> ImageInfo:
    """Build the ISO and take it into the cache; a copy with its manifest goes to output.

    Raises ToolMissing, ToolFailed when a tool of the build fails.
    """
    from machine.isos.machineos.build import build as make

    def build_here(folder: Path) -> Path:
        iso = folder / f"{NAME}-{architecture}.iso"
        make(iso, arch=architecture, say=say)
        return iso

    return take_built(architecture, build_here, output=output)


def take_built(architecture: str, make: Callable[[Path], Path], *, output: Path | None) -> ImageInfo:
    """Take what make writes into a folder into the cache; a copy with its manifest goes to output."""
    with tempfile.TemporaryDirectory(prefix="machineos-") as folder:
        image = add(make(Path(folder)))
        if output:
            files.make_folder(output, 0o755)
            for product in Path(folder).glob(f"{NAME}-{architecture}.*"):
                shutil.copy(product, output)
    return cache.find(image.digest)


def is_iso(path: Path) -> bool:
    """Whether the file is an ISO 9660 image (ECMA-119, 8.1.2)."""
    with path.open("rb") as file:
        file.seek(16 * 2048 + 1)
        return file.read(5) == b"CD001"


def add(path: Path, *, named: bool = True, say: Callable[[str], None] = lambda text: None) -> Image:
    """Take an ISO into the cache, with its kernel and initrd beside it. Raises NoSuchImage, ImageCorrupt.

    named: whether new machines boot it from now on; say is told when another command is waited for.
    """
    if not path.is_file():
        raise NoSuchImage(f"there is no file {path}", hint="machine iso ls")
    boot = extract(path, "/boot/vmlinuz", "/boot/initrd.img", "/machineos/about.json")
    kernel, initrd, raw = boot
    try:
        facts = json.loads(raw)
        about = ImageInfo(
            name=NAME,
            digest=cache.digest(path),
            architecture=facts["architecture"],
            format="iso",
            size=path.stat().st_size,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=facts["version"],
            recipe=facts.get("recipe", ""),
        )
        beside = {"kernel": kernel, "initrd": initrd, "cmdline": facts["command_line"].encode()}
        if facts.get("clones"):
            beside["clones"] = b""
        if facts.get("containers"):
            beside["root-offset"] = str(_root_offset(path)).encode()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(path, error) from error
    if not all(text.isprintable() for text in (about.architecture, about.version, about.recipe)):
        raise _foreign(path, ValueError("its version can't be printed"))
    return cache.add(path, about, boot=beside, named=named, say=say)


def extract(iso: Path, *names: str) -> list[bytes]:
    """Files out of an ISO, by their Rock Ridge names. Raises ImageCorrupt when it is no machineos."""
    with _opened(iso) as reader:
        return [_file(reader, name) for name in names]


def _root_offset(iso: Path) -> int:
    """At which byte of the ISO the squashfs of the root file system begins. Raises ImageCorrupt."""
    with _opened(iso) as reader:
        return int(reader.get_record(rr_path=ROOT).extent_location()) * SECTOR


@contextlib.contextmanager
def _opened(iso: Path) -> Iterator[Any]:
    """pycdlib's reader of the ISO; it has no types."""
    import pycdlib

    reader = pycdlib.PyCdlib()
    try:
        reader.open(str(iso))
        try:
            yield reader
        finally:
            reader.close()
    except OSError:
        raise
    except Exception as error:  # its own, and whatever comes of an ISO that was made to break it
        raise _foreign(iso, error) from error


def _foreign(iso: Path, error: Exception) -> ImageCorrupt:
    return ImageCorrupt(f"{iso} isn't a machineos ISO: {reason(error)}", hint="machine iso build")


def _file(reader: Any, name: str) -> bytes:
    content = BytesIO()
    reader.get_file_from_iso_fp(content, rr_path=name)
    return content.getvalue()

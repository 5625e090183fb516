"""A whole machine in one file: a tar with its disk, its keys, and the image that it boots.

    about.json      the format, the machine, its image's processor, and how much room it takes
    image/NAME      the image, and what image.json says of it
    home/NAME       the disk and the keys: the driver's `parts`
    sums.json       SHA-256 of each of these; it comes last, so that a truncated file is noticed

Nothing in it depends on a path or on a store. The first start makes new certificates, signed by the store's own CA, and
all that a running machine leaves behind (sockets, logs). `unpack` reads the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from machine import spec
from machine.driver import Driver, Export, Portable
from machine.errors import Usage
from machine.images import cache
from machine.instance import Instance
from machine.paths import Image, MachineFolder
from machine.progress import Progress
from machine.resources import human
from machine.spec import Machine, State

# Format 1 had more files in home/ and image/, and neither room nor architecture in about.json.
FORMAT = 2
ABOUT, SUMS = "about.json", "sums.json"
HOME, IMAGE = "home/", "image/"


def write(instance: Instance, out: IO[bytes], progress: Progress, *, compress: bool, image: bool) -> None:
    """Write a stopped machine to out. image: whether to include the image that it boots."""
    machine = instance.machine
    with portable(instance.driver).export() as export:
        for left in export.left:
            progress.note(left)
        files = dict(_files(machine, instance.folder, export, image=image))
        sums: dict[str, str] = {}
        booted = cache.find_digest(machine.image)
        about = {
            "format": FORMAT,
            "machine": json.loads(spec.dumps(machine)),
            "image": any(name.startswith(IMAGE) for name in files),
            "architecture": booted.architecture if booted else "",
            "room": sum(_room(path) for path in files.values()),
        }
        with tarfile.open(fileobj=out, mode="w|gz" if compress else "w|", format=tarfile.GNU_FORMAT) as archive:
            _add_text(archive, ABOUT, json.dumps(about, indent=2))
            for name, path in files.items():
                what = f"writing {path.name} ({human(max(1, path.stat().st_size >> 20))})"
                progress.phase(what)
                sums[name] = _add_file(archive, name, path, teller(what, path.stat().st_size, progress))
            _add_text(archive, SUMS, json.dumps(sums, indent=2))


def portable(driver: Driver) -> Portable:
    """The driver as an Export. Raises Usage when its machines can't be exported."""
    machine = driver.machine
    if not driver.kind.is_ours:
        raise Usage(
            f'"{machine.name}" is an existing host: the store has nothing of it to export',
            hint=f"machine create --driver {machine.driver} --help",
        )
    if not isinstance(driver, Portable):
        raise Usage(
            f"{machine.driver} machines can't be exported: their disks lie outside of the store",
            hint="move the volumes with docker: docker run --rm -v VOLUME:/v IMAGE tar c /v",
        )
    return driver


def check_stopped(name: str, state: State) -> None:
    """Raise Usage unless the machine is off, because a running machine's disk changes while it is read."""
    if state is State.SAVED:
        raise Usage(
            f'the machine "{name}" is suspended, and its memory can\'t be moved',
            hint=f"shut it down: machine start {name} && machine stop {name};"
            f" or discard its memory: machine kill {name}",
        )
    if state is not State.STOPPED:
        raise Usage(f'the machine "{name}" is {state.lower()}', hint=f"machine stop {name}")


def _files(machine: Machine, folder: MachineFolder, export: Export, *, image: bool) -> Iterator[tuple[str, Path]]:
    if machine.image and image:
        cached = Image(machine.image)
        yield from ((f"{IMAGE}{path.name}", path) for path in (cached.about, cached.file))
    for key in (folder.ssh_key, folder.host_key):
        yield f"{HOME}{key.name}", key
    yield from ((f"{HOME}{name}", path) for name, path in export.files.items())


def _room(path: Path) -> int:
    """The space of a file on disk, in bytes: less than its size if it has holes."""
    found = path.stat()
    return min(found.st_size, found.st_blocks * 512) if hasattr(found, "st_blocks") else found.st_size


def teller(what: str, size: int, progress: Progress) -> Callable[[bytes], None]:
    """A function to call with each block of a file of that size; it reports the progress."""
    done = 0

    def tell(block: bytes) -> None:
        nonlocal done
        done += len(block)
        progress.advance(f"{what}: {100 * done // max(size, 1)} %")

    return tell


def _add_file(archive: tarfile.TarFile, name: str, path: Path, tell: Callable[[bytes], None]) -> str:
    entry = tarfile.TarInfo(name)
    digest = hashlib.sha256()

    def seen(block: bytes) -> None:
        digest.update(block)
        tell(block)

    with path.open("rb") as file:
        entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o600, int(path.stat().st_mtime)
        archive.addfile(entry, _Watched(file, seen))
    return digest.hexdigest()


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), 0o600
    archive.addfile(entry, io.BytesIO(text.encode()))


class _Watched:
    """A file that passes each block that is read to a function."""

    def __init__(self, file: IO[bytes], seen: Callable[[bytes], None]) -> None:
        self.file = file
        self.seen = seen

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.seen(block)
        return block

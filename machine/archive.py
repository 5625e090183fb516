"""A whole machine in one file: a tar with its disk, its keys, and the image that it boots.

    about.json      the format, the machine, and what the image is
    home/NAME       files of the machine's home
    image/NAME      files of the image's folder
    sums.json       SHA-256 of each of these; the last one, so a file that is cut short is noticed

Nothing in it depends on a path or on a store: certificates, which a store's own CA signs, are made anew at the first
start, and so is all that a running machine leaves behind (sockets, logs).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from machine import files, images, paths, spec, store
from machine.errors import MachineError, Usage
from machine.images import About
from machine.paths import Home, Image
from machine.progress import Progress
from machine.reasons import reason
from machine.resources import human
from machine.spec import Machine

FORMAT = 1
_BLOCK = 1 << 20
_ABOUT, _SUMS = "about.json", "sums.json"
_NAME = re.compile(r"(home|image)/([A-Za-z0-9_][A-Za-z0-9._-]*)")
# Of a home: what is made anew, and what only a running machine has.
_LEFT_OUT = re.compile(
    r"machine\.json|creating\.json|lock|known_hosts|ssh_config|seed\.iso|.*\.pem|.*\.pid|.*\.sock|.*\.log(\.\d+)?|\..*"
)


def write(machine: Machine, home: Home, out: IO[bytes], progress: Progress, *, compress: bool, image: bool) -> None:
    """Write the machine, which must be stopped, to out. image: with the image that it boots, if there is one."""
    sums: dict[str, str] = {}
    folder = Image(machine.image).folder if machine.image and image else None
    about = {"format": FORMAT, "machine": json.loads(spec.dumps(machine)), "image": folder is not None}
    with tarfile.open(fileobj=out, mode="w|gz" if compress else "w|", format=tarfile.PAX_FORMAT) as archive:
        _add_text(archive, _ABOUT, json.dumps(about, indent=2))
        for name, path in _members(home, folder):
            progress.phase(f"writing {path.name} ({human(max(1, path.stat().st_size >> 20))})")
            sums[name] = _add_file(archive, name, path)
        _add_text(archive, _SUMS, json.dumps(sums, indent=2))


def read(
    source: IO[bytes],
    name: str | None,
    progress: Progress,
    *,
    place: Callable[[Machine, list[Machine]], Machine],
    finish: Callable[[Machine, Home], None],
    undo: Callable[[Machine, Home], None],
) -> Machine:
    """Make the machine that source holds, under another name if one is given; it is stopped then, or nothing is left.

    place gives it an address, knowing the other machines; finish makes the virtual machine, when all files are there,
    and undo removes it. Raises MachineError when source isn't a machine, or is damaged.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            entries = iter(archive)
            machine = dataclasses.replace(_about(archive, entries), address=None)
            machine = dataclasses.replace(machine, name=name or machine.name)
            spec.check_new_name(machine.name)
            with store.reserve(machine.name, lambda others: place(_distinct(machine, others), others), undo) as made:
                _unpack(archive, entries, made[1], progress)
                finish(*made)
            return made[0]
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MachineError(
            f"that isn't a whole machine: {reason(error)}", hint="export it again: machine export"
        ) from error


def check_stopped(name: str, state: str) -> None:
    """Raise Usage unless the machine is off: the disk of a running one changes while it is read."""
    if state != "Stopped":
        raise Usage(f'the machine "{name}" is {state.lower()}', hint=f"stop it first: machine stop {name}")


def _members(home: Home, image: Path | None) -> Iterator[tuple[str, Path]]:
    for prefix, folder in (("image", image), ("home", home.folder)):
        for path in sorted(folder.iterdir()) if folder else ():
            if path.is_file() and not path.is_symlink() and not (prefix == "home" and _LEFT_OUT.fullmatch(path.name)):
                yield f"{prefix}/{path.name}", path


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> str:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o600, int(path.stat().st_mtime)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        archive.addfile(entry, _Watched(file, digest.update))
    return digest.hexdigest()


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), 0o600
    archive.addfile(entry, io.BytesIO(text.encode()))


class _Watched:
    """A file that shows what is read from it."""

    def __init__(self, file: IO[bytes], seen: Callable[[bytes], None]) -> None:
        self.file = file
        self.seen = seen

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.seen(block)
        return block


def _about(archive: tarfile.TarFile, entries: Iterator[tarfile.TarInfo]) -> Machine:
    first = next(entries, None)
    try:
        if first is None or first.name != _ABOUT:
            raise ValueError("it doesn't begin with about.json")
        data = json.loads(_content(archive, first).read())
        if data["format"] > FORMAT:
            raise MachineError("a newer machine wrote that file", hint="upgrade machine: pipx upgrade machine-vm")
        return spec.loads(json.dumps(data["machine"]), Path(_ABOUT))
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError(f"that isn't a machine: {reason(error)}", hint="machine export writes such files") from error


def _unpack(archive: tarfile.TarFile, entries: Iterator[tarfile.TarInfo], home: Home, progress: Progress) -> None:
    sums: dict[str, str] = {}
    # Inside of the home, which goes as a whole if we are killed.
    with tempfile.TemporaryDirectory(dir=home.folder, prefix=".image-") as folder:
        for entry in entries:
            if entry.name == _SUMS:
                if json.loads(_content(archive, entry).read()) != sums:
                    raise MachineError("that file is damaged: its checksums don't fit", hint="copy it here again")
                _take_image(Path(folder))
                return
            match = _NAME.fullmatch(entry.name)
            if not match or not entry.isreg():
                raise MachineError(
                    f"a machine's file doesn't hold {entry.name!r}", hint="don't trust who gave it to you"
                )
            target = (Path(folder) if match[1] == "image" else home.folder) / match[2]
            progress.phase(f"reading {match[2]} ({human(max(1, entry.size >> 20))})")
            sums[entry.name] = _extract(_content(archive, entry), target)
    raise MachineError("that file is cut short", hint="copy it here again")


def _extract(source: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    target.touch(mode=0o600)
    with target.open("wb") as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _take_image(folder: Path) -> None:
    if not (folder / "image.json").exists():
        return
    about = About(**json.loads((folder / "image.json").read_text(encoding="utf-8")))
    if Image(about.digest).file.exists():
        return
    others = {path.name: path for path in folder.iterdir() if path.name not in {"image", "image.json", images.SUMS}}
    newest = _newest(about.name)
    images.add(folder / "image", about, boot={name: path.read_bytes() for name, path in others.items()})
    if newest:
        # What a new machine boots is this host's choice, not the archive's.
        files.write(paths.images() / about.name, newest + "\n")


def _newest(name: str) -> str:
    with contextlib.suppress(MachineError):
        return images.current(name).digest
    return ""


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(entry)
    if content is None:
        raise MachineError(f"{entry.name} isn't a file in there", hint="export it again: machine export")
    return content


def _distinct(machine: Machine, others: list[Machine]) -> Machine:
    """The machine, with an identity of its own if one of the others has the same: two copies on one host."""
    if any(other.uuid == machine.uuid or other.mac == machine.mac for other in others if other.uuid):
        mac = ":".join(["52", "54", "00", *(uuid.uuid4().hex[at : at + 2] for at in (0, 2, 4))])
        return dataclasses.replace(machine, uuid=str(uuid.uuid4()), mac=mac)
    return machine

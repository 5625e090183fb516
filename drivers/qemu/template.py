"""Templates: booted machines without an identity, kept with their memory, from which new machines are cloned.

A template is booted with its memory in a file that QEMU shares (memory-backend-file,share=on). When its Docker answers
it is stopped, and the state of its devices is saved by migration with the capability x-ignore-shared, which leaves the
memory where it is. A clone maps that file privately and loads the state; its disk is an overlay of the template's.
Kata Containers call it VM templating. See docs/performance.md for the measurements.

    <store>/templates/KEY/
      about.json      what it was made of, and checksums
      memory  state   the memory, and the devices' state
      disk.qcow2      the disk that clones' disks are laid over
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import files, locks
from machine.driver import KeptTemplate
from machine.errors import DriverFailed, MachineError
from machine.paths import Image
from machine.reasons import reason

from . import failures
from .argv import DISK

ABOUT = "about.json"
MEMORY = "memory"
STATE = "state"
# Raised when a template of an older machine can't be used any more: another layout of QEMU's devices, say.
FORMAT = 1
# Seconds for another command that makes the same template: it boots, is prepared, and is saved, each with a deadline.
PATIENCE = 1200.0
OTHER_VERSION = "made by another version of machine"


class Damaged(DriverFailed):
    """Its files are not those that were made, or not all there: on this proof alone a template is removed."""


@dataclass(frozen=True)
class Recipe:
    """All that a template depends on; machines with equal recipes are cloned from one template. Sizes in MiB.

    engine: a digest of the settings that the daemon is started with.
    """

    image: str
    qemu: str
    accelerator: str
    cpu: str
    cpus: int
    base_mib: int
    disk_mib: int
    engine: str
    format: int = FORMAT

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TemplateInfo:
    """What about.json says. read_only: see argv.Memory.

    files: name -> a mark that changes with the file's content. digests: name -> SHA-256 of the whole file; none in a
    template of an earlier version.
    """

    recipe: dict[str, Any]
    created: str
    read_only: bool
    files: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)


class Template:
    """One template, which is there or not; the folder appears when it is whole, in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def memory(self) -> Path:
        return self.folder / MEMORY

    @property
    def state(self) -> Path:
        return self.folder / STATE

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    def about(self) -> TemplateInfo:
        """Raises Damaged, also when the template is absent, and DriverFailed when it can't be read."""
        try:
            about = TemplateInfo(**json.loads((self.folder / ABOUT).read_text(encoding="utf-8")))
            changed = [name for name, mark in about.files.items() if _mark(self.folder / name) != mark]
        except (FileNotFoundError, ValueError, TypeError, AttributeError) as error:
            raise Damaged(f"the template {self.folder.name} is damaged: {reason(error)}") from error
        except OSError as error:
            raise DriverFailed(f"the template {self.folder.name} can't be read: {reason(error)}") from error
        if changed:
            raise Damaged(f"the template {self.folder.name} is damaged: {changed[0]} has changed")
        return about

    def verify(self) -> None:
        """Read every byte, which takes a second or two. Raises as `about` does."""
        for name, digest in self.about().digests.items():
            try:
                found = _digest(self.folder / name)
            except OSError as error:
                raise DriverFailed(f"the template {self.folder.name} can't be read: {reason(error)}") from error
            if found != digest:
                raise Damaged(f"the template {self.folder.name} is damaged: {name} has changed")

    def remove(self) -> None:
        """Machines that were cloned from it are not touched: each has a link of its own to the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def folder(store: Path) -> Path:
    return store / "templates"


def all_of(store: Path) -> Iterator[Template]:
    """The templates of a store, damaged ones too."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder(store).iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield Template(path)


def list_kept(store: Path) -> list[KeptTemplate]:
    """The templates of a store as the user sees them, and those that couldn't be made."""
    failed = {failure.key: failure for failure in failures.all_of(folder(store)) if failure.counts}
    seen = [_seen(template) for template in all_of(store)]
    keys = {one.key for one in seen}
    return [
        *(replace(one, failed=failed[one.key].reason) if one.key in failed else one for one in seen),
        *(
            KeptTemplate(key, failure.at, 0, _what(failure.recipe), "", failure.reason)
            for key, failure in failed.items()
            if key not in keys
        ),
    ]


def _seen(template: Template) -> KeptTemplate:
    # Where a file has holes, what it takes is less than its size.
    size = sum(path.stat().st_blocks * 512 for path in template.folder.iterdir()) >> 20
    try:
        about = template.about()
    except DriverFailed as error:
        return KeptTemplate(template.folder.name, "", size, "", error.message)
    try:
        recipe = Recipe(**about.recipe)
    except TypeError:
        return KeptTemplate(template.folder.name, about.created, size, "", OTHER_VERSION)
    return KeptTemplate(template.folder.name, about.created, size, _what(about.recipe), _stale(recipe))


def _what(recipe: dict[str, Any]) -> str:
    image, cpus, base_mib, accelerator = (recipe.get(name) for name in ("image", "cpus", "base_mib", "accelerator"))
    return f"{str(image)[:12]}, {cpus} cpus, {base_mib} MiB, {accelerator}"


def remove(store: Path, key: str) -> None:
    """Remove a template, and forget that it failed."""
    Template(folder(store) / key).remove()
    failures.forget(folder(store), key)


def _stale(recipe: Recipe) -> str:
    path, *mark = recipe.qemu.rsplit(" ", 2)
    if not Image(recipe.image).file.exists():
        return "its image was removed"
    if qemu_mark(Path(path)) != " ".join(mark):
        return "QEMU has changed"
    return "" if recipe.format == FORMAT else OTHER_VERSION


def qemu_mark(binary: Path) -> str:
    """What changes when QEMU is upgraded; a device's state may look different then."""
    try:
        stat = binary.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def obtain(store: Path, recipe: Recipe, make: Callable[[Path], bool], say: Callable[[str], None]) -> Template:
    """The template of that recipe, made when it isn't there or is damaged; one process makes it, others wait for it.

    make puts memory, state and disk into the folder that it gets, and says whether clones can open the memory
    read-only. Raises what make raises, WaitTimeout, and DriverFailed for a template that failed a short time ago: see
    failures.py.
    """
    template = Template(folder(store) / recipe.key)
    if _can_be_cloned(template):
        return template
    files.make_folder(folder(store))
    lock, what = folder(store) / f".{recipe.key}.lock", "another command to finish the template"
    with locks.held(lock, what=what, timeout=PATIENCE, say=say):
        if _can_be_cloned(template):
            return template
        if template.folder.exists():
            say("its template can't be used: making a new one")
            template.remove()
        try:
            _make(template, recipe, make)
        except (MachineError, OSError) as error:
            failures.remember(folder(store), recipe.key, asdict(recipe), reason(error))
            raise
        failures.forget(folder(store), recipe.key)
    return template


def sweep(store: Path) -> None:
    """Remove what is left of a template whose making was killed; one that somebody is making now stays."""
    from filelock import FileLock, Timeout

    for new in folder(store).glob(_new("*")):
        try:
            with FileLock(new.with_suffix(".lock"), mode=0o600, timeout=0):
                shutil.rmtree(new, ignore_errors=True)
        except Timeout:
            continue


def _new(key: str) -> str:
    """The folder of a template that isn't whole yet; its lock has the same name with another suffix."""
    return f".{key}.new"


def _make(template: Template, recipe: Recipe, make: Callable[[Path], bool]) -> None:
    new = template.folder.with_name(_new(recipe.key))
    shutil.rmtree(new, ignore_errors=True)
    files.make_folder(new)
    try:
        read_only = make(new)
        names = (MEMORY, STATE, DISK)
        digests = {name: _digest(new / name, sync=True) for name in names}
        marks = {name: _mark(new / name) for name in names}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        about = TemplateInfo(asdict(recipe), created, read_only, marks, digests)
        files.write(new / ABOUT, json.dumps(asdict(about), indent=2) + "\n")
        files.move(new, template.folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _can_be_cloned(template: Template) -> bool:
    """False when it is to be made, now. Raises DriverFailed when that isn't worth a try, or it can't be read."""
    key = template.folder.name
    if failure := failures.find(template.folder.parent, key):
        if failure.counts:
            again = f"tried again a day later, or after: machine template rm {key}"
            raise DriverFailed(f"it failed at {failure.at}: {failure.reason}; {again}")
        if failure.is_final and not failure.is_recent:
            return False
    try:
        template.about()
    except Damaged:
        return False
    return True


def _mark(path: Path) -> str:
    """A checksum of what can be read in a millisecond or two, and the file's size and time of change for the rest."""
    try:
        stat = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.name == STATE else ""
    except FileNotFoundError:
        return ""
    # Links to the disk come and go, which changes its ctime; so the time of change of the content is what counts.
    return f"{stat.st_size} {stat.st_mtime_ns} {content}".strip()


def _digest(path: Path, *, sync: bool = False) -> str:
    """sync: see also that it is on the disk for good; after a power cut it would be of the right size, with holes."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()

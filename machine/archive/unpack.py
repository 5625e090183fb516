"""Make a machine from an archive, which may come from a stranger.

Only members that the machine's driver knows are taken. Everything that can be computed is computed: identity, address,
sizes, digests, the image's kernel, the public keys. The user decides about options that let the machine reach this host
(`Incoming.reaches`), before anything is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from machine import files, registry, resources, spec, store
from machine.archive import pack
from machine.archive.pack import ABOUT, FORMAT, HOME, IMAGE, SUMS
from machine.archive.tarstream import Member, foreign, members
from machine.driver import Driver, Portable, Reach
from machine.errors import CheckFailed, ImageCorrupt, MachineError, StoreDamaged, Usage
from machine.images import cache, catalog, machineos, users
from machine.instance import Instance, reserve
from machine.paths import Image, MachineFolder
from machine.progress import Progress
from machine.reasons import reason
from machine.resources import human
from machine.spec import Machine
from machine.ssh import keys

# The largest file, in bytes, that is read into memory.
_TEXT = 1 << 20
# Bytes of the host's disk that import leaves free.
_SPARE = 64 << 20
# Files of format 1 that nothing needs: they are read and dropped.
_LEFT_OUT = re.compile(
    r"home/(?:id_ed25519\.pub|ssh_host_ed25519_key\.pub|ports\.json|snapshots\.json|hostonly\.json|[0-9a-f]{12}\.iso)"
    r"|image/(?:kernel|initrd|cmdline|clones|root-offset|boot\.json)"
)
# The fields of a machine that its owner chose, and those that this host or the disk decides.
KEPT = ("tls", "tls_sans", "ssh_user", "engine", "options", "hosts", "sysctls", "host_network_ports", "mounts")
RENEWED = (
    *("name", "driver", "uuid", "mac", "image", "memory_mib", "cpus", "disk_mib", "address", "created"),
    # This computer may have no such network, and no file names the machine: import makes it by hand.
    *("architecture", "network", "project"),
)
_IMAGE_PARTS = {"image", "image.json"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST_NAME = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9.:-]{0,252})")


class Incoming:
    """A machine whose archive is open; nothing has been written yet.

    machine: the new machine with its own identity, but without an address.
    """

    def __init__(self, source: IO[bytes], name: str | None, draft: Callable[..., Machine]) -> None:
        """draft is create.draft. Raises MachineError when source isn't a machine."""
        self._members = members(source)
        about = _about(self._members)
        self._has_image = about.get("image") is True
        self._room = room if isinstance(room := about.get("room"), int) else None
        theirs = _theirs(about["machine"])
        ours = _ours(theirs, name or theirs.name, draft)
        self.machine = dataclasses.replace(ours, architecture=_architecture(ours, about.get("architecture")))
        if self.machine.image and not self._has_image:
            cache.verify(Image(self.machine.image))

    def reaches(self) -> list[Reach]:
        """What the machine could reach on this host."""
        return [*_reaches(self.machine), *_portable(self.wanted().driver).reaches()]

    def make(
        self,
        progress: Progress,
        *,
        place: Callable[[Instance, list[Machine]], Instance],
        finish: Callable[[Instance], None],
        undo: Callable[[Instance], None],
    ) -> Machine:
        """Make the machine, stopped; after an error nothing is left.

        place gives it an address that no other machine has. finish makes the virtual machine when all files are
        written, and undo removes it.
        """
        reserved = reserve(self.wanted(), place, undo, progress.note)
        with users.noted(self.machine.image), reserved as instance:
            folder = instance.folder
            room = _Room(folder.path, self._room)
            with tempfile.TemporaryDirectory(dir=folder.path, prefix=".image-") as scratch:
                self._unpack(instance, Path(scratch), room, progress)
                _check_keys(folder)
                made = _portable(instance.driver).accept()
                files.write(folder.creating, spec.dumps(made))
                taken = self._has_image and _take_image(made.image, Path(scratch))
            try:
                finish(Instance(made, folder))
            except BaseException:
                if taken:
                    cache.remove(cache.find(made.image))
                raise
        return made

    def wanted(self) -> Instance:
        """The machine as it will be, before it has an address."""
        return Instance(self.machine, store.folder_of(self.machine.name))

    def _unpack(self, instance: Instance, scratch: Path, room: _Room, progress: Progress) -> None:
        folder = instance.folder
        parts = _portable(instance.driver).parts | {folder.ssh_key.name, folder.host_key.name}
        allowed = {f"{HOME}{name}": folder / name for name in parts}
        if self._has_image:
            allowed |= {f"{IMAGE}{name}": scratch / name for name in _IMAGE_PARTS}
        sums: dict[str, str] = {}
        for member in self._members:
            if member.name == SUMS:
                if _json(member) != sums:
                    raise MachineError("that file is damaged: its checksums don't fit", hint="copy it here again")
                return
            if member.name in sums or not (member.name in allowed or _LEFT_OUT.fullmatch(member.name)):
                raise foreign(repr(member.name))
            what = f"reading {member.name.partition('/')[2]} ({human(max(1, member.size >> 20))})"
            progress.phase(what)
            tell = pack.teller(what, member.size, progress)
            sums[member.name] = _extract(member, allowed.get(member.name), room, tell)
        raise MachineError("that file is incomplete", hint="copy it here again")


class _Room:
    """The free space for a machine. declared: what the archive says that the machine needs, in bytes."""

    def __init__(self, folder: Path, declared: int | None) -> None:
        self.folder = folder
        self.declared = declared
        if declared:
            self.check(declared)

    def check(self, size: int) -> None:
        """Raise CheckFailed when size bytes don't fit."""
        if size > (free := resources.free_bytes(self.folder) - _SPARE):
            raise CheckFailed(
                f"the machine needs {human(size >> 20)}, and {human(max(0, free) >> 20)} are free in {self.folder}",
                hint="make room, or set MACHINE_STORAGE_PATH",
            )


def _about(entries: Iterator[Member]) -> dict[str, object]:
    first = next(entries, None)
    if first is None or first.name != ABOUT:
        raise foreign(f"no {ABOUT} at its beginning")
    about = _json(first)
    written = about.get("format")
    if not isinstance(written, int) or not isinstance(about.get("machine"), dict) or not _is_printable(about):
        raise foreign(f"an {ABOUT} that no export writes")
    if written > FORMAT:
        raise MachineError("a newer version of machine wrote that file", hint="pipx upgrade machine-vm")
    return about


def _theirs(machine: object) -> Machine:
    try:
        return spec.loads(json.dumps(machine), Path(ABOUT))
    except StoreDamaged as error:
        raise foreign(f"a machine that can't be read: {error.message}") from error


def _json(member: Member) -> dict[str, object]:
    try:
        found = json.loads(member.content(_TEXT))
    except (ValueError, RecursionError) as error:
        raise foreign(f"{member.name}, which isn't JSON: {reason(error)}") from error
    if not isinstance(found, dict):
        raise foreign(f"{member.name}, which isn't a JSON object")
    return found


def _is_printable(data: object) -> bool:
    """Whether no text in it has control characters, which steer a terminal or begin a new line in a file."""
    if isinstance(data, dict):
        return all(_is_printable(part) for pair in data.items() for part in pair)
    if isinstance(data, list):
        return all(_is_printable(part) for part in data)
    return data.isprintable() if isinstance(data, str) else True


def _ours(theirs: Machine, name: str, draft: Callable[..., Machine]) -> Machine:
    """A new machine of this store with the settings of theirs."""
    try:
        spec.check_new_name(name)
    except Usage as error:  # a machine of an earlier version may have it
        error.hint = "machine import --name NAME FILE"
        raise
    if theirs.image and not _DIGEST.fullmatch(theirs.image):
        raise foreign(f"the digest {theirs.image!r}")
    if not _USER.fullmatch(theirs.ssh_user):
        raise foreign(f"the user {theirs.ssh_user!r}")
    settings = [*dataclasses.astuple(theirs.engine), theirs.tls_sans, theirs.hosts, theirs.sysctls]
    if not all(isinstance(word, str) for words in settings for word in words):
        raise foreign("settings that aren't text")
    if wrong := [san for san in theirs.tls_sans if not _HOST_NAME.fullmatch(san)]:
        raise foreign(f"{wrong[0]!r} for a name in its certificate")
    sizes = {"memory_mib": theirs.memory_mib, "cpus": theirs.cpus, "disk_mib": theirs.disk_mib}
    new = draft(name, theirs.driver, theirs.image, **sizes)
    made = dataclasses.replace(new, **{field: getattr(theirs, field) for field in KEPT})
    _check_options(made)
    _check_mounts(made)
    return made


def _check_mounts(machine: Machine) -> None:
    from machine.folders import mount_spec

    for text in machine.mounts:
        try:
            mount_spec.parse(text)
        except Usage as error:
            raise foreign(f"{text!r} for a shared folder") from error


def _check_options(machine: Machine) -> None:
    driver = registry.load(machine.driver)
    defaults = {field.name: field.default for field in dataclasses.fields(driver.Options)}
    for name, value in machine.options.items():
        if name not in defaults:
            raise foreign(f"the option {name!r}, which the driver {driver.name} doesn't have")
        words = value if isinstance(value, tuple) else ()
        if type(value) is not type(defaults[name]) or not all(isinstance(word, str) for word in words):
            raise foreign(f"{value!r} for the option {name}")


def _portable(driver: Driver) -> Portable:
    try:
        return pack.portable(driver)
    except Usage as error:
        raise foreign(f"a machine of the driver {driver.name}, which can't be exported") from error


def _reaches(machine: Machine) -> list[Reach]:
    """What a machine could reach with any driver."""
    found = []
    if not machine.tls:
        what = "a Docker without TLS: every user of this host, and web pages in its browser, can be root in the machine"
        found.append(Reach(what, lambda asked: dataclasses.replace(asked, tls=True)))
    if machine.tls_sans:
        what = f"a certificate of your CA for the names {', '.join(machine.tls_sans)}"
        found.append(Reach(what, lambda asked: dataclasses.replace(asked, tls_sans=())))
    if machine.mounts:
        what = f"folders of this host, with your rights: {', '.join(machine.mounts)}"
        found.append(Reach(what, lambda asked: dataclasses.replace(asked, mounts=())))
    return found


def _architecture(machine: Machine, theirs: object) -> str:
    """What the machine is to have here: other processors than this host's where its driver emulates them."""
    here = resources.architecture()
    if not theirs or theirs == here:
        return ""
    if theirs in resources.ARCHITECTURES and registry.load(machine.driver).emulates:
        return str(theirs)
    raise CheckFailed(
        f'the machine "{machine.name}" is for {theirs} processors, and this host has {here}',
        hint="move its volumes with docker: docker run --rm -v VOLUME:/v IMAGE tar c /v",
    )


def _extract(member: Member, target: Path | None, room: _Room, tell: Callable[[bytes], None]) -> str:
    """Write a member, with holes in place of zeros, and return its digest. target is None for a member to drop."""
    if target and room.declared is None:
        room.check(member.size)
    digest = hashlib.sha256()
    with _opened(target) as file:
        for block in member.blocks():
            digest.update(block)
            tell(block)
            if file is None:
                continue
            if block.count(0) == len(block):
                file.seek(len(block), 1)
            else:
                room.check(len(block))
                file.write(block)
        if file:
            file.truncate()
    return digest.hexdigest()


@contextlib.contextmanager
def _opened(target: Path | None) -> Iterator[IO[bytes] | None]:
    if target is None:
        yield None
        return
    target.touch(mode=0o600, exist_ok=False)
    with target.open("r+b") as file:
        yield file


def _check_keys(folder: MachineFolder) -> None:
    for key in (folder.ssh_key, folder.host_key):
        try:
            keys.publish(key, folder.name)
        except (OSError, ValueError) as error:
            raise foreign(f"{HOME}{key.name}, which isn't a key: {reason(error)}") from error


def _take_image(digest: str, folder: Path) -> bool:
    """Add the image to the cache without a name, because a stranger must not choose what new machines boot.

    Returns False when the cache has it already.
    """
    file = folder / "image"
    if not file.exists() or cache.digest(file) != digest:
        raise ImageCorrupt(
            "the image in that file isn't the machine's", hint="get the file from somebody whom you trust"
        )
    if Image(digest).file.exists():
        return False
    if machineos.is_iso(file):
        machineos.add(file, named=False)
    else:
        catalog.take(file, f"imported-{digest[:12]}", named=False)
    return True

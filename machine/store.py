"""The store: a folder for each machine, made whole or not at all.

    ~/.machine/
      certs/                  the CA and the client's certificate
      images/                 the cache of images
      machines/NAME/          what belongs to one machine (paths.MachineFolder)
        machine.json          the machine as asked for: it is there when create is through
        creating.json         the same while create is at work
        lock                  held by whoever changes the machine

A process that dies drops its lock. So a folder with creating.json whose lock is free is what a killed create left
behind, and `sweep` clears it: each command calls that first. What somebody else put there (docker-machine keeps its
machines under the same $MACHINE_STORAGE_PATH) is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from machine import leftovers, paths, spec
from machine.errors import MachineError, MachineExists, NoSuchMachine, StoreDamaged
from machine.leftovers import SCRATCH, TRASH
from machine.paths import MachineFolder
from machine.reasons import reason
from machine.spec import Machine

if TYPE_CHECKING:
    from filelock import FileLock

# How long a command waits for another that works on the same machine, in seconds.
PATIENCE = 10.0


def folder() -> Path:
    return leftovers.folder()


def folder_of(name: str) -> MachineFolder:
    spec.check_name(name)
    return MachineFolder(folder() / name)


def names() -> list[str]:
    """The machines of the store, in natural order (a2 before a10); those being created are not among them.

    A folder that we can't look into is: it may be a machine, and `load` says what is wrong with it.
    """
    try:
        with os.scandir(folder()) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(TRASH)]
            found = [name for name in names if paths.is_there(folder() / name / "machine.json")]
    except FileNotFoundError:
        return []
    return sorted(found, key=natural)


def natural(name: str) -> list[str | int]:
    """The key to sort names by: digits as numbers, case ignored."""
    # Texts and numbers take turns in what re.split returns, so a text is never compared with a number.
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def exists(name: str) -> bool:
    return paths.is_there(folder_of(name).config) and _is_spelled(name)


def has_folder(name: str) -> bool:
    """Whether there is a folder of that name, be it of a machine or of what is left of one."""
    return paths.is_there(folder_of(name).path) and _is_spelled(name)


def _is_spelled(name: str) -> bool:
    """Whether a folder has exactly that name: a file system that ignores case (macOS, Windows) takes Web for web."""
    try:
        with os.scandir(folder()) as entries:
            return any(entry.name == name for entry in entries)
    except OSError:  # what is done next tells why
        return True


def _alike(name: str) -> str:
    """A machine whose name differs in upper and lower case only, "" if there is none: to DNS they are one name."""
    return next((other for other in names() if other != name and other.lower() == name.lower()), "")


def load(name: str) -> Machine:
    """Raises NoSuchMachine, or StoreDamaged when machine.json can't be understood."""
    config = folder_of(name).config
    try:
        machine = _read(config)
    except FileNotFoundError as error:
        raise NoSuchMachine(name) from error
    # A folder that was copied: what is done to the copy mustn't be done to the machine.
    if machine.name != name:
        if not _is_spelled(name):
            raise NoSuchMachine(name)
        hint = f"remove the copy: machine rm -f {name}"
        if not paths.is_there(theirs := folder() / machine.name):  # it was moved, and is the only one
            hint = f"give it its name again: {shlex.join(['mv', str(config.parent), str(theirs)])}"
        raise StoreDamaged(f'{config} belongs to the machine "{machine.name}"', hint=hint)
    return machine


def read(folder: MachineFolder) -> Machine:
    """The machine of a folder, also while it is being created."""
    # Twice the first: a create that is through meanwhile renames the one to the other.
    for path in (folder.config, folder.creating, folder.config):
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
    raise NoSuchMachine(folder.name)


def records(folder: MachineFolder) -> tuple[Path, ...]:
    """Where a machine's record is: create renames the second to the first."""
    return folder.config, folder.creating


def version(records: tuple[Path, ...]) -> tuple[int, int] | None:
    """It changes with the machine's record, which is replaced as a whole; None where that can't be told."""
    for path in records:
        with contextlib.suppress(OSError):
            found = path.stat()
            return found.st_ino, found.st_mtime_ns
    return None


def _read(path: Path) -> Machine:
    try:
        from machine import files

        text = files.read_text(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        from machine import ownership

        # What is only busy, or on a disk that fails to answer, is no reason to remove the machine.
        mend = f"correct it, or remove the machine: machine rm -f {path.parent.name}"
        wait = f"try again: machine status {path.parent.name}"
        hint = ownership.remedy(path) or (mend if isinstance(error, IsADirectoryError) else wait)
        raise StoreDamaged(f"{path} can't be read: {reason(error)}", hint=hint) from error
    except UnicodeDecodeError as error:
        hint = f"correct it, or remove the machine: machine rm -f {path.parent.name}"
        raise StoreDamaged(f"{path} isn't UTF-8 text", hint=hint) from error
    return spec.loads(text, path)


def save(machine: Machine) -> None:
    """Replace machine.json of a machine that is there; the caller holds its lock."""
    from machine import files

    files.write(folder_of(machine.name).config, spec.dumps(machine))


def all_known() -> list[Machine]:
    """Every machine whose file can be read, those being created included."""
    known = []
    for place in leftovers.folders():
        if place.name.startswith(TRASH):
            continue
        with contextlib.suppress(MachineError):
            known.append(read(MachineFolder(place)))
    return known


@contextlib.contextmanager
def reserve(
    name: str,
    build: Callable[[list[Machine]], Machine],
    undo: Callable[[Machine, MachineFolder], None],
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Machine, MachineFolder]]:
    """Hold the name while a machine is made: the machine is in the store when the block ends well, else nothing is.

    build makes the Machine, knowing the others (for an address that is free); undo removes what was made outside the
    folder; say is told when another command is waited for. Raises MachineExists, WaitTimeout.
    """
    from machine import files

    if other := _alike(name):
        raise MachineExists(other)
    place = folder_of(name)
    machine, lock = _begin(place, build, undo, say)
    try:
        yield machine, place
        files.move(place.creating, place.config)
    except BaseException:
        _undo(machine, place, lock, undo)
        raise
    lock.release()


def _undo(
    machine: Machine, place: MachineFolder, lock: FileLock, undo: Callable[[Machine, MachineFolder], None]
) -> None:
    """Remove what was made. Where that fails the lock is free, so that the next command's sweep can do it."""
    try:
        undo(machine, place)
        leftovers.discard(place, lock)
    finally:
        lock.release()


@contextlib.contextmanager
def scratch(key: str, machine: Machine, undo: Callable[[Machine, MachineFolder], None]) -> Iterator[MachineFolder]:
    """A folder for a machine that is to live as long as the block: a driver makes a template in it.

    Like a reserved one it is cleared by the next command when this process is killed. Raises MachineExists.
    """
    place = MachineFolder(folder() / f"{SCRATCH}{key}")
    _, lock = _begin(place, lambda _: machine, undo)
    try:
        yield place
    finally:
        _undo(machine, place, lock, undo)


def _begin(
    place: MachineFolder,
    build: Callable[[list[Machine]], Machine],
    undo: Callable[[Machine, MachineFolder], None],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Machine, FileLock]:
    """Make the folder, locked and with creating.json in it."""
    from machine import files

    leftovers.make_room(place, _clearing(undo), say)
    with leftovers.store_lock(say):
        if paths.is_there(place.path):
            raise MachineExists(place.name)
        files.make_folder(place.path)
        lock = leftovers.lock_of(place)
        try:
            lock.acquire(timeout=0)
            machine = build(all_known())
            files.write(place.creating, spec.dumps(machine))
        except BaseException:
            leftovers.discard(place, lock)
            raise
    return machine, lock


@contextlib.contextmanager
def changing(name: str) -> Iterator[Machine]:
    """Hold the machine's lock while a verb changes it. Raises NoSuchMachine, StoreDamaged, MachineError when busy."""
    place = folder_of(name)
    if not exists(name):
        raise NoSuchMachine(name)
    lock = leftovers.lock_of(place)
    with _acquired(lock, name):
        if not paths.is_there(place.config):
            leftovers.discard(place, lock)  # rm was quicker; the lock made the folder anew
            raise NoSuchMachine(name)
        yield load(name)


@contextlib.contextmanager
def removing(name: str, remove: Callable[[MachineFolder], None]) -> Iterator[None]:
    """Hold the lock, call remove for what lies outside the folder, and then remove the folder."""
    place = folder_of(name)
    if not has_folder(name):
        raise NoSuchMachine(name)
    lock = leftovers.lock_of(place)
    with _acquired(lock, name):
        yield
        remove(place)
        leftovers.discard(place, lock)


def sweep(undo: Callable[[Machine, MachineFolder], None]) -> Iterator[tuple[str, MachineError | None]]:
    """Clear what a killed create or rm left behind. Costs a look at each folder when there is nothing.

    Yields the names, and why one couldn't be cleared: that mustn't keep anybody from the other machines.
    """
    for place in [
        MachineFolder(place) for place in leftovers.folders() if leftovers.is_left_over(MachineFolder(place))
    ]:
        try:
            if leftovers.swept(place, _clearing(undo)) and not place.name.startswith(SCRATCH):
                yield place.name, None
        except MachineError as error:
            yield place.name, error


def _clearing(undo: Callable[[Machine, MachineFolder], None]) -> Callable[[MachineFolder], None]:
    def clear(place: MachineFolder) -> None:
        with contextlib.suppress(NoSuchMachine, StoreDamaged):
            undo(read(place), place)

    return clear


def has_unfinished_templates() -> bool:
    """Whether a template is being made, or its making was killed: Driver.sweep_templates can tell which."""
    with contextlib.suppress(OSError), os.scandir(paths.store() / "templates") as entries:
        return any(entry.name.startswith(".") and entry.name.endswith(".new") for entry in entries)
    return False


@contextlib.contextmanager
def _acquired(lock: FileLock, name: str) -> Iterator[None]:
    from filelock import Timeout

    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise MachineError(
            f'another command is using the machine "{name}"', hint="wait for it to end, or end it"
        ) from error
    except FileNotFoundError as error:  # that other command was rm
        raise NoSuchMachine(name) from error
    try:
        yield
    finally:
        lock.release()

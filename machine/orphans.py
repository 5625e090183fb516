"""What is left of machines that aren't in the store any more: processes, and virtual machines in hypervisors.

This happens when a machine's folder, or its machine.json, is removed by hand. Nothing counts as an orphan if it may
belong to a machine: a machine that is being made has creating.json before anything else exists, and a machine whose
file can't be read may have any UUID.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from machine import paths, probe, registry, spec, store
from machine.driver import Driver, Machine, Orphan
from machine.errors import MachineError
from machine.findings import Finding, Level
from machine.paths import MachineFolder
from machine.run import run

if TYPE_CHECKING:
    import psutil

CHECK = "orphans"
# Removes the orphans for good; without --repair, `doctor` only lists them.
REPAIR = "machine doctor --repair"


def processes() -> Iterator[Finding]:
    """Hypervisors and helpers of this store that work for a machine without a record."""
    import psutil

    gone: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if (name := _works_for(command)) and not _process_has_record(name, _uuid(command)):
                gone.setdefault(name, []).append(process)
    for name, found in gone.items():
        numbers = " ".join(str(process.pid) for process in found)
        text = f"processes of a machine {name} that doesn't exist: {numbers}"
        hint = f"machine rm -f {name}" if _has_folder(name) else f"kill {numbers}"
        yield Finding(CHECK, Level.ERROR, text, hint, _ending(found))


def in_hypervisors(timeout: float) -> Iterator[Finding]:
    """The orphans that the drivers find. timeout in seconds, for each driver. Drivers that don't load are skipped.

    An orphan that may belong to somebody else is a warning without a repair.
    """
    known = store.all_known()
    for name in registry.names():
        try:
            driver = registry.load(name)
        except MachineError:
            continue
        found = _found(driver, known, timeout)
        if found is None:
            text = f"{name} didn't list its virtual machines within {timeout:g} s"
            yield Finding(CHECK, Level.WARNING, text, "try again later: machine doctor")
        yield from (_finding(name, orphan) for orphan in found or () if not _may_be_owned(orphan))


def _found(driver: type[Driver], known: list[Machine], timeout: float) -> list[Orphan] | None:
    found: list[Orphan] = []

    def look() -> None:
        with contextlib.suppress(MachineError):  # that it doesn't work is told where it is needed
            found.extend(driver.orphans(paths.store(), known, run))

    return found if probe.together([look], timeout=timeout)[0] else None


def _finding(driver: str, orphan: Orphan) -> Finding:
    text = f"{driver}: {orphan.what}: no machine in the store uses it"
    if orphan.remove is None:
        return Finding(CHECK, Level.WARNING, text, orphan.hint)
    return Finding(CHECK, Level.ERROR, text, REPAIR, _clearing(orphan.name, _unless_owned(orphan, orphan.remove)))


def _unless_owned(orphan: Orphan, remove: Callable[[], None]) -> Callable[[], None]:
    """Look at the store again before the removal: somebody may have put machine.json back meanwhile."""

    def act() -> None:
        if not _may_be_owned(orphan):
            remove()

    return act


def _may_be_owned(orphan: Orphan) -> bool:
    if orphan.uuid in {machine.uuid for machine in store.all_known()}:
        return True
    if not orphan.name or not _has_record(orphan.name):
        return False
    try:
        store.read(_home(orphan.name))
    except MachineError:
        return True
    return False


def _clearing(name: str, act: Callable[[], None]) -> Callable[[], None]:
    """Also remove the rest of the machine's folder, which would block its name."""

    def clear() -> None:
        if _has_folder(name) and not _has_record(name):
            with store.removing(name, lambda _: act()):
                pass
        else:
            act()

    return clear


def _home(name: str) -> MachineFolder:
    return MachineFolder(store.folder() / name)


def _has_folder(name: str) -> bool:
    return spec.NAME.fullmatch(name) is not None and paths.is_there(_home(name).path)


def _has_record(name: str) -> bool:
    folder = _home(name)
    return paths.is_there(folder.config) or paths.is_there(folder.creating)


def _process_has_record(name: str, uuid: str) -> bool:
    """Whether a process may work for a machine in the store. uuid: "" if its command line has none."""
    if uuid and uuid in {machine.uuid for machine in store.all_known()}:
        return True  # its folder may have another name now
    if not uuid or not _has_record(name):
        return _has_record(name)
    try:
        return store.read(_home(name)).uuid in {"", uuid}
    except MachineError:
        return True


def _works_for(command: list[str]) -> str:
    """The machine of this store that a hypervisor (-pidfile PATH) or a helper (-m MODULE HOME) works for, else ""."""
    for option, value in pairwise(command):
        if option == "-pidfile":
            return _machine_of(Path(value))
        if option == "-m" and value.startswith(f"{__package__}.drivers"):
            return _machine_of(Path(command[-1]))
    return ""


def _machine_of(path: Path) -> str:
    """The name of the machine's folder that a path leads into, however it is spelled."""
    for spelling in (path, Path(os.path.realpath(path))):
        if found := paths.below(spelling, store.folder()):
            return next(iter(found.parts), "")
    return ""


def _uuid(command: list[str]) -> str:
    return next((value for option, value in pairwise(command) if option == "-uuid"), "")


def _ending(found: list[psutil.Process]) -> Callable[[], None]:
    def end() -> None:
        import psutil

        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)

    return end

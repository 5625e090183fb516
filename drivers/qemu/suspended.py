"""Suspend, and going on from there. No state is ever loaded over a disk that is newer than it.

    .suspended       a state that is being written; the guest stands still
    suspended        a whole state; the guest has not run since
    .woken           a state that was loaded; the guest has run since, or may have
    suspended.json   how QEMU was laid out

Only `suspended` is loaded. A state gets its next name, for good, before the step that makes the old name untrue: so it
is `.woken` before the guest runs. Where a command is killed between two steps it leaves files, or a QEMU, that the
next start brings in order (`settle`). The times of the files are a second guard: a state that is older than its disk
is dropped, whatever its name; earlier versions of machine, or somebody's qemu-img, may have left such a pair.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict

from machine import files
from machine.errors import DriverFailed
from machine.paths import MachineFolder
from machine.reasons import reason

from . import migration
from .argv import DISK, SUSPENDED, SUSPENDED_LAYOUT
from .layout import Layout
from .qmp import Qmp
from .vm import Vm

PARTIAL = ".suspended"
WOKEN = ".woken"
# Nanoseconds. Before its file is dated (`_date`) a state is milliseconds younger or older than its disk.
TOLERANCE = 2_000_000_000
# QEMU's words for one that waits for a state, or for a snapshot: nothing, or half of it, is in its memory.
NEVER_RAN = {"inmigrate", "prelaunch"}


def suspend(vm: Vm) -> None:
    """See driver.Suspend. Where it fails, the machine goes on as if nothing had been."""
    folder = vm.folder
    with vm.monitor() as monitor:
        if any((folder / name).exists() for name in (PARTIAL, SUSPENDED, WOKEN)):
            # An earlier suspend or start was killed. QEMU saves no guest twice that hasn't run in between.
            go_on(monitor, folder)
        try:
            files.write(folder / SUSPENDED_LAYOUT, json.dumps(asdict(Layout.read(monitor))))
            migration.save(monitor, folder / PARTIAL)
            files.move(folder / PARTIAL, folder / SUSPENDED)
        except BaseException:
            # A full disk, or Ctrl-C.
            forget(folder)
            with contextlib.suppress(DriverFailed):
                # What is still being written would stop the guest again at its end.
                monitor.execute("migrate_cancel")
                monitor.execute("cont")
            raise
    vm.end()
    _date(folder)


def wake(vm: Vm) -> None:
    """Go on with a suspended machine; its state stays where it can't be loaded. Raises DriverFailed."""
    folder, layout = vm.folder, _layout(vm)
    try:
        with layout.launch(vm, incoming=True) as monitor:
            migration.load(monitor, folder / SUSPENDED)
    except BaseException:
        _date(folder)  # that QEMU has ended before its guest ran, though it may have touched the disk's file
        raise
    # From here on an error doesn't end QEMU: the only copy of the memory is in it. The next start lets it go on.
    with vm.monitor() as monitor:
        go_on(monitor, folder)
    vm.set_clock()


def go_on(monitor: Qmp, folder: MachineFolder) -> None:
    """Let a guest run that stands still; what was saved of it is out of date from then on."""
    if (folder / PARTIAL).exists():
        monitor.execute("migrate_cancel")  # as in suspend
    if (folder / SUSPENDED).exists():
        files.move(folder / SUSPENDED, folder / WOKEN)
    monitor.execute("cont")
    forget(folder)


def settle(vm: Vm) -> None:
    """Bring in order what a killed suspend, start or restore has left, before a start. The machine's lock is held.

    There is no QEMU then, or one that may go on; and there is a state only where it fits the disk.
    """
    folder = vm.folder
    if vm.process.find():
        if vm.run_state() not in NEVER_RAN:
            return
        vm.say("an earlier start or restore was interrupted: ending its QEMU")
        with state_kept(folder):
            vm.end()
    if (folder / SUSPENDED).exists() and _is_older_than_disk(folder):
        _drop(vm, "the memory that it was suspended with is older than its disk")
    elif (folder / WOKEN).exists() and not (folder / SUSPENDED).exists():
        _drop(vm, "the memory that it was suspended with was used already, and its QEMU has ended since")
    elif (folder / PARTIAL).exists() and not (folder / SUSPENDED).exists():
        _drop(vm, "its memory was not written to the end when it was suspended")
    files.remove(folder / WOKEN, folder / PARTIAL)


def forget(folder: MachineFolder) -> None:
    """Drop every state, for good."""
    files.remove(*(folder / name for name in (SUSPENDED, PARTIAL, WOKEN, SUSPENDED_LAYOUT)))


@contextlib.contextmanager
def state_kept(folder: MachineFolder) -> Iterator[None]:
    """For work on the disk's file that leaves as it is what the guest has on it: a state that fits it still does."""
    fits = not _is_older_than_disk(folder)
    yield
    if fits:
        _date(folder)


def _date(folder: MachineFolder) -> None:
    """Give the state the time of its disk, so that whatever is written to the disk later makes that the newer one."""
    with contextlib.suppress(FileNotFoundError):
        written = (folder / DISK).stat().st_mtime_ns
        os.utime(folder / SUSPENDED, ns=(written, written))


def _drop(vm: Vm, why: str) -> None:
    vm.say(f"{why}: it is discarded, and the machine boots from its disk")
    forget(vm.folder)


def _is_older_than_disk(folder: MachineFolder) -> bool:
    try:
        state, disk = ((folder / name).stat().st_mtime_ns for name in (SUSPENDED, DISK))
    except FileNotFoundError:
        return False
    return disk - state > TOLERANCE


def _layout(vm: Vm) -> Layout:
    try:
        return Layout.parse(json.loads((vm.folder / SUSPENDED_LAYOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DriverFailed(
            f"the record of the suspended machine's hardware can't be read: {reason(error)}",
            hint=f"discard its memory: machine kill {vm.machine.name}",
        ) from error

"""Snapshots inside the machine's qcow2 disk: its disk, and its memory when it runs.

QEMU keeps them; beside the disk stands only how that QEMU was laid out, which a state must find again when loaded.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from machine import files, wait
from machine.driver import Snapshot, State
from machine.errors import DriverFailed
from machine.paths import MachineFolder

from . import suspended
from .argv import DISK
from .layout import Layout
from .qmp import Qmp
from .vm import Vm

LAYOUTS = "snapshots.json"
# Seconds: the memory of a large machine goes to a slow disk.
DEADLINE = 600.0


def take(vm: Vm, name: str) -> None:
    if any(one.name == name for one in all_of(vm)):
        raise DriverFailed(f'the snapshot "{name}" already exists', hint=f"machine snapshot ls {vm.machine.name}")
    state = vm.state()
    if state is State.STOPPED:
        vm.run(["qemu-img", "snapshot", "-c", name, vm.folder / DISK])
        return
    if state is State.SAVED:
        raise DriverFailed("can't take a snapshot of a suspended machine", hint=f"machine start {vm.machine.name}")
    if state not in {State.RUNNING, State.PAUSED}:  # a killed restore leaves a QEMU with nothing in its memory
        name = vm.machine.name
        raise DriverFailed(f'the machine "{name}" is {state.lower()}', hint=f"machine start {name}")
    with vm.monitor() as monitor:
        layouts = _layouts(vm.folder) | {name: asdict(Layout.read(monitor))}
        files.write(vm.folder / LAYOUTS, json.dumps(layouts))
        _job(monitor, "snapshot-save", tag=name, vmstate="data", devices=["data"])


def all_of(vm: Vm) -> list[Snapshot]:
    # -U: the disk of a running machine is locked.
    output = vm.run(["qemu-img", "info", "-U", "--output=json", vm.folder / DISK]).stdout
    snapshots = sorted(json.loads(output).get("snapshots", []), key=lambda one: (one["date-sec"], one["date-nsec"]))
    return [
        Snapshot(
            name=one["name"],
            created=datetime.fromtimestamp(one["date-sec"], UTC).isoformat(timespec="seconds"),
            running=one["vm-state-size"] > 0,
        )
        for one in snapshots
    ]


def restore(vm: Vm, name: str) -> None:
    """The machine is as it was, its QEMU a new one. What it was since then, also a suspended state, is gone."""
    layout = _layout(vm.folder, name) if _find(vm, name).running else None
    if layout:
        layout.apply(vm).argv(layout.memory)  # before anything is lost: is its image there?
    vm.end()
    suspended.forget(vm.folder)
    _forget_answers(vm)
    if not layout:
        vm.run(["qemu-img", "snapshot", "-a", name, vm.folder / DISK])
        return
    with layout.launch(vm, paused=True) as monitor:
        _job(monitor, "snapshot-load", tag=name, vmstate="data", devices=["data"])
        monitor.execute("cont")
    vm.set_clock()


def _forget_answers(vm: Vm) -> None:
    """The guest numbers its calls as it did before: those that look the same are others now."""
    from machine.folders import handles, mount_spec

    if (vm.folder / mount_spec.DATABASE).exists():
        handles.forget_answers(vm.folder / mount_spec.DATABASE)


def forget(vm: Vm, name: str) -> None:
    _find(vm, name)
    if vm.process.find():
        with vm.monitor() as monitor:
            _job(monitor, "snapshot-delete", tag=name, devices=["data"])
    else:
        with suspended.state_kept(vm.folder):
            vm.run(["qemu-img", "snapshot", "-d", name, vm.folder / DISK])
    layouts = _layouts(vm.folder)
    if layouts.pop(name, None):
        files.write(vm.folder / LAYOUTS, json.dumps(layouts))


def _find(vm: Vm, name: str) -> Snapshot:
    for one in all_of(vm):
        if one.name == name:
            return one
    raise DriverFailed(f'there is no snapshot "{name}"', hint=f"machine snapshot ls {vm.machine.name}")


def _layout(folder: MachineFolder, name: str) -> Layout:
    try:
        return Layout.parse(_layouts(folder)[name])
    except (KeyError, TypeError) as error:
        raise DriverFailed(f'the hardware of the snapshot "{name}" isn\'t known') from error


def _layouts(folder: MachineFolder) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads((folder / LAYOUTS).read_text(encoding="utf-8")))
    return {}


def _job(monitor: Qmp, command: str, **arguments: object) -> None:
    """Run a job of QEMU's to its end. Raises DriverFailed with QEMU's reason."""
    # While QEMU writes or reads a memory, it answers nobody.
    with monitor.patient(DEADLINE):
        _run_job(monitor, command, **arguments)


def _run_job(monitor: Qmp, command: str, **arguments: object) -> None:
    job = f"{command}-{uuid.uuid4().hex[:8]}"
    monitor.execute(command, **{"job-id": job}, **arguments)

    def end() -> dict[str, Any] | None:
        jobs = {one["id"]: one for one in monitor.execute("query-jobs")}
        return jobs[job] if jobs[job]["status"] == "concluded" else None

    ended = wait.until(end, timeout=DEADLINE, what=f"QEMU's {command}", interval=0.01)
    monitor.execute("job-dismiss", id=job)
    if "error" in ended:
        raise DriverFailed(f"QEMU's {command} failed: {ended['error']}")

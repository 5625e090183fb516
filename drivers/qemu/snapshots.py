"""Snapshots inside the machine's qcow2 disk: its disk, and its memory when it runs.

QEMU keeps them; beside the disk stands only how that QEMU was laid out, which a state must find again when loaded.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from machine import files, wait
from machine.driver import Snapshot, State
from machine.errors import DriverFailed
from machine.paths import Home

from . import saved, sizes, suspended
from .argv import DISK, Memory
from .qmp import Qmp

if TYPE_CHECKING:
    from .driver import Qemu

LAYOUTS = "snapshots.json"
# Seconds: the memory of a large machine goes to a slow disk.
DEADLINE = 600.0


def take(qemu: Qemu, name: str) -> None:
    if any(one.name == name for one in found(qemu)):
        raise DriverFailed(f'there is a snapshot "{name}" already', hint=f"machine snapshot ls {qemu.machine.name}")
    state = qemu.state()
    if state is State.STOPPED:
        qemu.run(["qemu-img", "snapshot", "-c", name, qemu.home / DISK])
        return
    if state is State.SAVED:
        raise DriverFailed("a suspended machine can't be kept", hint=f"machine start {qemu.machine.name}")
    if state not in {State.RUNNING, State.PAUSED}:  # a killed restore leaves a QEMU with nothing in its memory
        name = qemu.machine.name
        raise DriverFailed(f'the machine "{name}" is {state.lower()}', hint=f"machine start {name}")
    with qemu.monitor() as monitor:
        layouts = _layouts(qemu.home) | {name: sizes.layout(monitor)}
        files.write(qemu.home / LAYOUTS, json.dumps(layouts))
        _job(monitor, "snapshot-save", tag=name, vmstate="data", devices=["data"])


def found(qemu: Qemu) -> list[Snapshot]:
    # -U: the disk of a running machine is locked.
    told = qemu.run(["qemu-img", "info", "-U", "--output=json", qemu.home / DISK]).stdout
    kept = sorted(json.loads(told).get("snapshots", []), key=lambda one: (one["date-sec"], one["date-nsec"]))
    return [
        Snapshot(
            name=one["name"],
            created=datetime.fromtimestamp(one["date-sec"], UTC).isoformat(timespec="seconds"),
            running=one["vm-state-size"] > 0,
        )
        for one in kept
    ]


def restore(qemu: Qemu, name: str) -> None:
    """The machine is as it was, its QEMU a new one. What it was since then, also a suspended state, is gone."""
    wanted = _named(qemu, name)
    layout = _layouts(qemu.home).get(name)
    if wanted.running and layout is None:
        raise DriverFailed(f'how the machine of the snapshot "{name}" was laid out isn\'t known')
    if wanted.running and layout:
        saved.alike(qemu, layout).argv(Memory(layout["base_mib"]))  # before anything is lost: is its image there?
    qemu.kill()
    if layout is None or not wanted.running:
        qemu.run(["qemu-img", "snapshot", "-a", name, qemu.home / DISK])
        return
    with saved.laid_out(qemu, layout, paused=True) as monitor:
        sizes.plug(monitor, layout["more_mib"])
        _job(monitor, "snapshot-load", tag=name, vmstate="data", devices=["data"])
        monitor.execute("cont")
    saved.has_woken(qemu)


def forget(qemu: Qemu, name: str) -> None:
    _named(qemu, name)
    if qemu.process.find():
        with qemu.monitor() as monitor:
            _job(monitor, "snapshot-delete", tag=name, devices=["data"])
    else:
        with suspended.unchanged(qemu.home):
            qemu.run(["qemu-img", "snapshot", "-d", name, qemu.home / DISK])
    layouts = _layouts(qemu.home)
    if layouts.pop(name, None):
        files.write(qemu.home / LAYOUTS, json.dumps(layouts))


def _named(qemu: Qemu, name: str) -> Snapshot:
    for one in found(qemu):
        if one.name == name:
            return one
    raise DriverFailed(f'there is no snapshot "{name}"', hint=f"machine snapshot ls {qemu.machine.name}")


def _layouts(home: Home) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((home / LAYOUTS).read_text(encoding="utf-8")))
    return {}


def _job(monitor: Qmp, command: str, **arguments: object) -> None:
    """Run a job of QEMU's to its end. Raises DriverFailed with QEMU's reason."""
    job = f"{command}-{uuid.uuid4().hex[:8]}"
    monitor.execute(command, **{"job-id": job}, **arguments)

    def end() -> dict[str, Any] | None:
        jobs = {one["id"]: one for one in monitor.execute("query-jobs")}
        return jobs[job] if jobs[job]["status"] == "concluded" else None

    ended = wait.until(end, timeout=DEADLINE, what=f"QEMU's {command}", interval=0.01)
    monitor.execute("job-dismiss", id=job)
    if "error" in ended:
        raise DriverFailed(f"QEMU's {command} failed: {ended['error']}")

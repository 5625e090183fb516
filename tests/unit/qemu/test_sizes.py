"""Memory, processors and disk of a machine that is there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
from fake_qemu import Recorder, guest
from fake_qmp import HANG_UP, Server, agent, monitor
from machine.drivers.qemu import Qemu, sizes
from machine.drivers.qemu.argv import DISK, ROOM_MIB
from machine.drivers.qemu.layout import Layout

from machine import run
from machine.driver import Resize
from machine.errors import DriverFailed
from machine.paths import MachineFolder
from machine.spec import Machine

GIB = 1 << 30


class Memory:
    """The monitor's answers for a machine that started with 512 MiB. follows: the guest takes what it is given."""

    def __init__(self, *, plugged_mib: int = 0, follows: bool = True) -> None:
        self.size = plugged_mib << 20
        self.requested = self.size
        self.follows = follows

    def answers(self) -> dict[str, Any]:
        return {
            "query-cpus-fast": [{"return": [{}]}],
            "query-memory-size-summary": {"base-memory": 512 << 20},
            "qom-set": self._set,
            "qom-get": self._get,
            "qom-list": [{"return": [{"name": "memory", "type": "child<virtio-mem-pci>"}]}],
        }

    def _set(self, message: dict[str, Any]) -> dict[str, Any]:
        self.requested = message["arguments"]["value"]
        if self.follows:
            self.size = self.requested
        return {}

    def _get(self, message: dict[str, Any]) -> int | bool:
        return {"size": self.size, "requested-size": self.requested, "free-page-reporting": True}[
            message["arguments"]["property"]
        ]


def wanted(qemu: Qemu, **fields: Any) -> Machine:
    machine: Machine = replace(qemu.machine, **fields)
    return machine


def arguments(server: Server, command: str) -> list[Any]:
    return [message["arguments"] for message in server.asked if message["execute"] == command]


def test_it_can_be_resized(qemu: Qemu) -> None:
    assert isinstance(qemu, Resize)


@pytest.mark.parametrize(("memory_mib", "plugged_mib"), [(2048, 1536), (513, 0), (515, 2), (512 + ROOM_MIB, ROOM_MIB)])
def test_more_memory_is_plugged(
    qemu: Qemu, folder: MachineFolder, running: object, memory_mib: int, plugged_mib: int
) -> None:
    memory = Memory()
    with monitor(folder / "qmp.sock", memory.answers()) as server:
        assert qemu.resize(wanted(qemu, memory_mib=memory_mib)) == []
    assert arguments(server, "qom-set") == [
        {"path": "/machine/peripheral/memory", "property": "requested-size", "value": plugged_mib << 20}
    ]


@pytest.mark.parametrize("memory_mib", [2048, 512])
def test_the_guest_sets_its_limits_for_the_memory_that_it_has_now(
    qemu: Qemu, folder: MachineFolder, running: object, memory_mib: int
) -> None:
    larger = Qemu(wanted(qemu, memory_mib=1024), qemu.folder, qemu.run)
    memory = Memory(plugged_mib=512)
    with monitor(folder / "qmp.sock", memory.answers()), agent(folder / "agent.sock", guest) as inside:
        assert larger.resize(wanted(qemu, memory_mib=memory_mib)) == []
    (ran,) = arguments(inside, "guest-exec")
    assert ran == {"path": "/usr/lib/machineos/limits", "arg": [f"{memory_mib - 512}"], "capture-output": True}


def test_a_guest_without_that_program_gets_its_memory_all_the_same(
    qemu: Qemu, folder: MachineFolder, running: object
) -> None:
    def refuses(message: dict[str, Any]) -> list[Any]:
        return guest(message) if "sync" in message["execute"] else [{"error": {"desc": "no such program"}}]

    with monitor(folder / "qmp.sock", Memory().answers()), agent(folder / "agent.sock", refuses):
        assert qemu.resize(wanted(qemu, memory_mib=2048)) == []


def test_memory_that_was_plugged_is_taken_back(qemu: Qemu, folder: MachineFolder, running: object) -> None:
    memory = Memory(plugged_mib=1536)
    larger = Qemu(wanted(qemu, memory_mib=2048), qemu.folder, qemu.run)
    with monitor(folder / "qmp.sock", memory.answers()):
        assert larger.resize(wanted(qemu, memory_mib=512)) == []
    assert memory.size == 0


@pytest.mark.parametrize("memory_mib", [511, 512 + ROOM_MIB + 2])
def test_less_than_it_started_with_or_too_much_waits(
    qemu: Qemu, folder: MachineFolder, running: object, memory_mib: int
) -> None:
    with monitor(folder / "qmp.sock", Memory().answers()) as server:
        assert qemu.resize(wanted(qemu, memory_mib=memory_mib)) == ["memory_mib"]
    assert "qom-set" not in server.commands


def test_where_memory_cant_be_plugged_it_waits(qemu: Qemu, folder: MachineFolder, running: object) -> None:
    """QEMU on macOS has no virtio-mem. Suspend and snapshots ask for the layout, and plug what it says: nothing."""
    children = [{"name": "balloon", "type": "child<virtio-balloon-pci>"}]
    answers = Memory().answers() | {"qom-list": [{"return": children}]}
    with monitor(folder / "qmp.sock", answers) as server:
        assert qemu.resize(wanted(qemu, memory_mib=1024)) == ["memory_mib"]
        with qemu.vm.monitor() as asked:
            layout = Layout.read(asked)
            sizes.plug(asked, layout.more_mib)
    assert layout.more_mib == 0
    assert "qom-set" not in server.commands


def test_a_guest_that_doesnt_follow(
    qemu: Qemu, folder: MachineFolder, running: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "PATIENCE", 0.1)
    memory = Memory(follows=False)
    with monitor(folder / "qmp.sock", memory.answers()):
        assert qemu.resize(wanted(qemu, memory_mib=1024)) == ["memory_mib"]
    assert memory.requested == 512 << 20


def test_a_larger_disk_is_filled_by_the_guest(qemu: Qemu, folder: MachineFolder, running: object) -> None:
    with monitor(folder / "qmp.sock") as server, agent(folder / "agent.sock", guest) as inside:
        assert qemu.resize(wanted(qemu, disk_mib=2048)) == []
    assert arguments(server, "block_resize") == [{"node-name": "data", "size": 2 * GIB}]
    assert inside.commands[1] == "guest-exec"
    assert inside.asked[1]["arguments"]["path"] == "/usr/sbin/machineos-grow"


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: guest(message, exitcode=1),
        lambda message: guest(message) if "sync" in message["execute"] else [{"error": {"desc": "no such program"}}],
        lambda message: [HANG_UP],
    ],
)
def test_a_file_system_that_grows_at_the_next_boot(
    qemu: Qemu, folder: MachineFolder, running: object, answer: Any
) -> None:
    # The disk is larger by now: with the old size in machine.json, asking for one in between would shrink it.
    with monitor(folder / "qmp.sock") as server, agent(folder / "agent.sock", answer):
        assert qemu.resize(wanted(qemu, disk_mib=2048, cpus=2)) == ["disk_mib", "cpus"]
    assert "block_resize" in server.commands


def test_a_disk_that_qemu_doesnt_enlarge_is_an_error(qemu: Qemu, folder: MachineFolder, running: object) -> None:
    refused = [{"error": {"desc": "no space"}}]
    failing = pytest.raises(DriverFailed, match="no space")
    with monitor(folder / "qmp.sock", {"block_resize": refused}), failing:
        qemu.resize(wanted(qemu, disk_mib=2048))


def test_processors_wait_and_nothing_is_asked_of_qemu(qemu: Qemu, folder: MachineFolder, running: object) -> None:
    with monitor(folder / "qmp.sock") as server:
        assert qemu.resize(wanted(qemu, cpus=2)) == ["cpus"]
    assert server.commands == ["qmp_capabilities"]


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")
def test_the_disk_of_a_stopped_machine(qemu: Qemu, folder: MachineFolder, recorder: Recorder) -> None:
    recorder.images = True
    qemu.create()
    assert qemu.resize(wanted(qemu, disk_mib=2048, memory_mib=4096, cpus=4)) == []
    assert json.loads(run.run(["qemu-img", "info", "--output=json", folder / DISK]).stdout)["virtual-size"] == 2 * GIB
    recorder.ran.clear()
    assert qemu.resize(wanted(qemu, memory_mib=4096)) == []
    assert recorder.ran == []

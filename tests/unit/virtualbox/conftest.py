from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
from fake_vboxmanage import UUID, Scripted
from machine.drivers.virtualbox import VirtualBox, vboxmanage
from machine.drivers.virtualbox.vboxmanage import VBoxManage

from machine import helper
from machine.paths import MachineFolder
from machine.spec import Address, Machine, Option


class Make(Protocol):
    """A driver with the machine's fields and options: make(memory_mib=512, no_share=True)."""

    def __call__(self, name: str = "dev", *, memory_mib: int = 2048, **options: Option) -> VirtualBox: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.setattr(vboxmanage, "find", lambda: "VBoxManage")
    monkeypatch.setattr(vboxmanage, "PAUSE", 0.01)
    return Scripted()


@pytest.fixture(autouse=True)
def ensured(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The machines whose helper was started, unless it ran."""
    found: list[Path] = []
    monkeypatch.setattr(helper, "ensure", lambda folder, module: found.append(folder.path))
    return found


@pytest.fixture
def call(run: Scripted, tmp_path: Path) -> VBoxManage:
    return VBoxManage(run, tmp_path / "store", patience=120)


@pytest.fixture
def make(run: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(helper, "begin", lambda folder, module: run.calls.append(["(helper)"]))

    def build(name: str = "dev", *, memory_mib: int = 2048, **options: Option) -> VirtualBox:
        folder = MachineFolder(tmp_path / "store" / "machines" / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        machine = Machine(
            name=name,
            driver="virtualbox",
            uuid=UUID,
            mac="52:54:00:0a:0b:0c",
            image="",
            memory_mib=memory_mib,
            cpus=2,
            disk_mib=20000,
            address=Address("127.77.1.2"),
            options={"no_share": True, **options},
        )
        return VirtualBox(machine, folder, run)

    return build

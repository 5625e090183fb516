"""Virtual machines that docker-machine has made."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused
from machine.drivers.virtualbox import ExistingVM

from machine.driver import Address, FindsExisting, State, Suspend
from machine.errors import CheckFailed, DriverFailed, ToolMissing
from machine.paths import MachineFolder
from machine.run import Completed
from machine.spec import Machine, Option

VBOX = '<VirtualBox xmlns="http://www.virtualbox.org/"><Machine uuid="{%s}" name="old"/></VirtualBox>'
ADDRESS: dict[str, Option] = {"ip_address": "192.168.99.100", "engine_port": 2376, "ssh_port": 22}


@pytest.fixture
def existing(run: Scripted, tmp_path: Path) -> ExistingVM:
    folder = MachineFolder(tmp_path / "store" / "machines" / "old")
    folder.path.mkdir(parents=True)
    machine = Machine("old", "virtualbox-adopted", UUID, "", "", 0, 0, 0, options={**ADDRESS, "ui_type": "gui"})
    return ExistingVM(machine, folder, run)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """docker-machine's folder of the machine old."""
    folder = tmp_path / "machines" / "old"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "old.vbox").write_text(VBOX % UUID)
    return folder


def identify(folder: Path, run: Scripted) -> str:
    assert isinstance(ExistingVM, FindsExisting)
    return ExistingVM.identify(folder, "old", folder.parent.parent / "store", run)


def test_it_is_known_by_its_uuid(theirs: Path, run: Scripted) -> None:
    run.answer("showvminfo", info(config=f"{theirs}/old/old.vbox"))
    assert identify(theirs, run) == UUID
    assert [call[:2] for call in run.calls] == [["showvminfo", UUID]]


def test_one_that_is_gone(theirs: Path, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    run.answer("showvminfo", info(config="/a/copy/old.vbox"))
    with pytest.raises(CheckFailed, match="its virtual machine is no longer registered"):
        identify(theirs, run)
    run.answer("showvminfo", refused("Could not find a registered machine", "VBOX_E_OBJECT_NOT_FOUND"))
    with pytest.raises(CheckFailed, match="its virtual machine is no longer registered"):
        identify(theirs, run)
    for text in ("<VirtualBox", "<other/>", VBOX % ""):
        (theirs / "old" / "old.vbox").write_text(text)
        with pytest.raises(CheckFailed, match="doesn't exist: its settings"):
            identify(theirs, run)
    (theirs / "old" / "old.vbox").unlink()
    with pytest.raises(CheckFailed, match="No such file"):
        identify(theirs, run)


def test_without_vboxmanage(theirs: Path, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    from machine.drivers.virtualbox import vboxmanage

    monkeypatch.setattr(vboxmanage, "find", lambda: None)
    with pytest.raises(ToolMissing):
        identify(theirs, run)


@pytest.mark.parametrize(
    ("word", "call"),
    [
        ("poweroff", ["startvm", UUID, "--type", "gui"]),
        ("saved", ["startvm", UUID, "--type", "gui"]),
        ("paused", ["controlvm", UUID, "resume"]),
        ("running", []),
    ],
)
def test_start_switches_it_on_and_changes_nothing(
    existing: ExistingVM, run: Scripted, word: str, call: list[str]
) -> None:
    run.answer("showvminfo", info(word, 'Forwarding(0)="ssh,tcp,127.0.0.1,40123,,22"'))
    existing.start()
    assert [said for said in run.calls if said[0] != "showvminfo"] == ([call] if call else [])


def test_a_start_that_fails_names_docker_machine(existing: ExistingVM, run: Scripted) -> None:
    run.answer("showvminfo", info())
    run.answer("startvm", refused("something that isn't known"))
    with pytest.raises(DriverFailed) as caught:
        existing.start()
    assert caught.value.hint == "docker-machine start old"


def test_the_rest_of_its_life(existing: ExistingVM, run: Scripted) -> None:
    run.answer("showvminfo", info("running"))
    assert (existing.state(), existing.address()) == (State.RUNNING, Address("192.168.99.100", 2376, 22))
    existing.stop()
    assert run.said("controlvm") == [["controlvm", UUID, "acpipowerbutton"]]
    assert isinstance(cast(object, existing), Suspend)
    run.answer("showvminfo", info("running"), info("poweroff"))
    existing.kill()
    assert run.said("controlvm")[-1] == ["controlvm", UUID, "poweroff"]
    assert (existing.mounts(), existing.interfaces()) == ((), ())


def test_rm_touches_nothing_and_says_so(existing: ExistingVM, run: Scripted) -> None:
    said: list[str] = []
    existing.say = said.append
    existing.remove()
    ExistingVM(Machine("old", "", "", "", "", 0, 0, 0), existing.folder, run).remove()
    assert run.calls == []
    assert said == ["its virtual machine stays in VirtualBox: machine didn't make it"]
    assert ExistingVM.orphans(existing.folder.store, [], run) == []


def test_another_address_is_told(existing: ExistingVM, run: Scripted) -> None:
    run.answer("showvminfo", info("running"))
    for told in ("No value set!\n", "Value: 192.168.99.100\n"):
        run.answer("guestproperty", Completed([], 0, told, ""))
        assert existing.warnings() == []
    run.answer("guestproperty", Completed([], 0, "Value: 192.168.99.101\n", ""))
    assert "to 192.168.99.101 since" in existing.warnings()[0]
    assert existing.diagnosis().startswith("VirtualBox says: running\nits address has changed")
    run.answer("guestproperty", refused("no"))
    assert existing.warnings() == []


def test_it_isnt_made(existing: ExistingVM) -> None:
    for step in (existing.check, existing.create):
        with pytest.raises(CheckFailed) as caught:
            step()
        assert caught.value.hint == "machine import-docker-machine"

import shutil
from pathlib import Path

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused, transcript
from machine.drivers.virtualbox import VirtualBox
from machine.drivers.virtualbox.leftovers import is_below

from machine import spec
from machine.errors import DriverFailed, MachineError
from machine.paths import MachineFolder
from machine.run import Completed
from machine.spec import Machine
from tests.unit.virtualbox.conftest import Make

OTHER = "99999999-2222-4333-8444-555555555555"
REGISTERED = Completed([], 0, f'"dev" {{{UUID}}}\n"other" {{{OTHER}}}\n', "")


def disks(*found: tuple[str, str, str]) -> Completed:
    """What `list hdds` prints: (UUID, parent, path)."""
    text = "".join(f"UUID: {uuid}\nParent UUID: {parent}\nLocation: {path}\n\n" for uuid, parent, path in found)
    return Completed([], 0, text, "")


def test_nothing_is_there(make: Make, run: Scripted) -> None:
    make().remove()
    assert {call[0] for call in run.calls} == {"list"}


def test_a_machine_goes_with_its_media(make: Make, run: Scripted) -> None:
    made = make()
    folder = made.folder.path
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", info("running", config=f"{folder}/dev/dev.vbox"), info("poweroff"))
    run.answer("list hdds", disks(("d1", "base", f"{folder}/disk.vdi"), ("d2", "d1", f"{folder}/dev/Snapshots/x.vdi")))
    run.answer("list dvds", disks(("c1", "", f"{folder}/seed.iso"), ("c2", "", "/srv/others.iso")))
    made.remove()
    assert [call for call in run.calls if call[0] not in {"showvminfo", "list"}] == [
        ["controlvm", UUID, "poweroff"],
        ["unregistervm", UUID, "--delete"],
        ["closemedium", "disk", "d2", "--delete"],
        ["closemedium", "disk", "d1", "--delete"],
        ["closemedium", "dvd", "c1"],
    ]


def test_a_medium_that_is_in_use_elsewhere_stays(make: Make, run: Scripted) -> None:
    made = make()
    run.answer("list dvds", disks(("c1", "", f"{made.folder.path}/seed.iso")))
    run.answer("closemedium", refused("still attached to 1 virtual machines", "VBOX_E_OBJECT_IN_USE"))
    made.remove()


def test_a_disk_that_somebody_plugged_in_is_unplugged_first(make: Make, run: Scripted) -> None:
    made = make()
    ours = f'"SATA-1-0"="{made.folder.path}/disk.vdi"'
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", info("poweroff", ours, '"USB 2-0-1"="/srv/photos.vdi"'))
    made.remove()
    assert run.said("storageattach") == [
        ["storageattach", UUID, "--storagectl", "USB 2", "--port", "0", "--device", "1", "--medium", "none"]
    ]


def test_a_linked_clone_isnt_broken(make: Make, run: Scripted) -> None:
    made = make()
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", info("running"))
    run.answer("list hdds", disks(("d1", "base", f"{made.folder.path}/disk.vdi"), ("d2", "d1", "/srv/clone/x.vdi")))
    with pytest.raises(DriverFailed, match="linked clone") as caught:
        made.remove()
    assert "/srv/clone/x.vdi" in caught.value.message
    assert not run.said("controlvm")
    assert not run.said("unregistervm")


def test_a_failure_to_unregister_is_told(make: Make, run: Scripted) -> None:
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", info())
    run.answer("unregistervm", transcript("storage-unregistervm-parent-with-linked"))
    with pytest.raises(DriverFailed, match="Machine delete failed"):
        make().remove()


def test_a_machine_whose_settings_are_gone(make: Make, run: Scripted) -> None:
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", refused("The object functionality is limited", "E_ACCESSDENIED"))
    make().remove()
    assert run.said("unregistervm") == [["unregistervm", UUID]]


def test_without_a_machine_json_what_lies_in_the_folder_is_ours(run: Scripted, tmp_path: Path) -> None:
    folder = MachineFolder(tmp_path / "store" / "machines" / "dev")
    folder.path.mkdir(parents=True)
    unknown = Machine("dev", "", "", "", "", 0, 0, 0)
    run.answer("list vms", REGISTERED)
    run.answer(f"showvminfo {OTHER}", info(config="/srv/other/other.vbox"))
    run.answer(f"showvminfo {UUID}", info(config=f"{folder.path}/renamed/renamed.vbox"))
    VirtualBox(unknown, folder, run).remove()
    assert run.said("unregistervm") == [["unregistervm", UUID, "--delete"]]


def test_below(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert is_below(f"{tmp_path}/link/x", [f"{tmp_path}/real"])
    assert not is_below(f"{tmp_path}/really/x", [f"{tmp_path}/real"])
    assert not is_below(f"{tmp_path}/x", ["", f"{tmp_path}/real"])


def test_a_copy_of_the_folder_removes_and_changes_nothing(make: Make, run: Scripted, tmp_path: Path) -> None:
    made = make()
    made.folder.config.write_text(spec.dumps(made.machine))
    copy = MachineFolder(tmp_path / "copy" / "machines" / "dev")
    shutil.copytree(made.folder.path, copy.path)
    run.answer("list vms", REGISTERED)
    run.answer("showvminfo", *[info("poweroff", config=f"{made.folder.path}/dev/dev.vbox")] * 12)
    theirs = VirtualBox(made.machine, copy, run)
    for act in (
        *(theirs.remove, theirs.start, theirs.stop, theirs.kill, theirs.suspend),
        *(lambda: theirs.snapshot("s"), lambda: theirs.restore("s"), lambda: theirs.forget("s")),
    ):
        with pytest.raises(MachineError, match=f"belongs to {made.folder.path}, and this folder is a copy"):
            act()
    assert {call[0] for call in run.calls} == {"list", "showvminfo"}
    made.folder.config.unlink()  # nobody else's any more
    theirs.remove()
    assert run.said("unregistervm") == [["unregistervm", UUID, "--delete"]]

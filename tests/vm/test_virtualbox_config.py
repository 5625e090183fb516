"""The VirtualBox driver against a real VBoxManage; no virtual machine is started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from machine.drivers.virtualbox import VirtualBox, parse
from machine.drivers.virtualbox.vboxmanage import VBoxFailed
from virtualbox_rig import Rig, rig

from machine import lifecycle, paths, spec, store
from machine.create import draft
from machine.docker_machine import takeover
from machine.driver import State
from machine.errors import CheckFailed, DriverFailed
from machine.guest import existing_host
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.progress import Silent
from machine.run import Completed, run
from machine.spec import Address, Machine, Option

__all__ = ["rig"]

ADDRESS = Address("127.77.255.2")
# createvm, modifyvm, storagectl, createmedium, sharedfolder, setextradata, storageattach, and two that read.
CALLS_OF_CREATE = 9


class Make(Protocol):
    """A driver of a machine with these options; via: its Run."""

    def __call__(self, name: str = "dev", *, via: object = ..., **options: Option) -> VirtualBox: ...


@pytest.fixture
def make(rig: Rig, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Make]:
    place = rig.share / request.node.name.translate(str.maketrans("[]", "--"))
    monkeypatch.setenv(paths.STORE_VARIABLE, str(place))
    made: list[VirtualBox] = []

    def build(name: str = "dev", *, via: object = run, **options: Option) -> VirtualBox:
        machine = draft(name, "virtualbox", "", memory_mib=512, cpus=2, disk_mib=20000)
        shared = place / "shared"
        shared.mkdir(parents=True, exist_ok=True)
        asked: dict[str, Option] = {"no_vtx_check": True, "share_folder": f"{shared}:/mnt/host", **options}
        folder = store.folder_of(name)
        folder.path.mkdir(parents=True, exist_ok=True)
        machine = Machine(**{**vars(machine), "address": ADDRESS, "options": asked})
        made.append(VirtualBox(machine, folder, via))
        return made[-1]

    yield build
    for driver in made:
        VirtualBox(driver.machine, driver.folder, run).remove()


def show(rig: Rig, driver: VirtualBox) -> parse.Info:
    return parse.Info(parse.machinereadable(rig.info(driver.machine.uuid)))


def test_check(make: Make) -> None:
    assert make().check() == []
    with pytest.raises(CheckFailed, match="kernel driver isn't loaded"):
        make(no_vtx_check=False).check()


def test_create_makes_what_was_asked_for(rig: Rig, make: Make) -> None:
    driver = make(host_dns_resolver=True)
    driver.create()
    info = show(rig, driver)
    folder = driver.folder.path

    expected = {
        "name": "dev",
        "memory": "512",
        "cpus": "2",
        "firmware": "BIOS",
        "rtcuseutc": "on",
        "hwvirtex": "on",
        "nestedpaging": "on",
        "paravirtprovider": "kvm",
        "nic1": "nat",
        "nictype1": "virtio",
        "macaddress1": driver.machine.mac.replace(":", "").upper(),
        "nic2": "none",
        "uart1": "0x03f8,4",
        "uartmode1": f"file,{driver.folder.console}",
        "audio": "null",
        "usb": "off",
        "ehci": "off",
        "xhci": "off",
        "vrde": "off",
        "boot1": "dvd",
        "boot2": "none",
        "storagecontrollertype0": "IntelAhci",
        "SATA-1-0": f"{folder}/disk.vdi",
        "SATA-nonrotational-1-0": "on",
        "SharedFolderNameMachineMapping1": "home",
        "SharedFolderPathMachineMapping1": str(folder.parent.parent / "shared"),
        "description": f"Made by machine; it lies in {folder}",
    }
    assert {key: info.fields.get(key) for key in expected} == expected
    assert [str(rule) for rule in info.forwards] == [
        "docker,tcp,127.77.255.2,2375,,2375",
        "ssh,tcp,127.77.255.2,22,,22",
    ]
    assert driver.state() is State.STOPPED
    # 20 GB on paper.
    assert (driver.folder / "disk.vdi").stat().st_size < 4 << 20


def test_create_twice_changes_nothing(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    before = show(rig, driver)
    driver.create()
    assert show(rig, driver) == before


def test_start_brings_memory_rules_and_media_in_line(rig: Rig, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make()
    driver.create()
    rig("modifyvm", driver.uuid, "--natpf1", "tcp-8080,tcp,127.77.255.2,8080,,8080", "--natpf1", "mine,tcp,,9999,,9")
    monkeypatch.setenv(paths.IMAGES_VARIABLE, str(rig.share / "images"))
    image = paths.Image(driver.machine.image)
    image.folder.mkdir(exist_ok=True)
    image.file.write_bytes(b"\0" * 65536)
    driver.folder.seed.write_bytes(b"\0" * 65536)

    class Refused(Exception):
        pass

    def stop_there(argv: Sequence[str | Path], **options: Any) -> Completed:
        if argv[1] == "startvm":
            raise Refused
        return run(argv, **options)

    larger = Machine(**{**vars(driver.machine), "memory_mib": 768, "cpus": 1})
    with pytest.raises(Refused):
        VirtualBox(larger, driver.folder, stop_there).start()

    info = show(rig, driver)
    assert (info.fields["memory"], info.fields["cpus"]) == ("768", "1")
    assert {rule.name for rule in info.forwards} == {"docker", "ssh", "mine"}
    assert info.media["SATA-0-0"] == str(driver.folder / ".iso")
    assert info.media["SATA-2-0"] == str(driver.folder.seed)
    driver.remove()
    assert image.file.exists()


def test_remove_leaves_nothing_and_can_be_done_twice(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    assert rig.leftovers()
    driver.remove()
    assert rig.leftovers() == []
    assert list(driver.folder.path.iterdir()) == []
    driver.remove()


class Failing:
    """Runs VBoxManage; the call of that number fails, before it does anything or after it has done it."""

    def __init__(self, number: int, when: str) -> None:
        self.number = number
        self.when = when
        self.calls = 0

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Completed:
        self.calls += 1
        if self.calls == self.number and self.when == "before":
            return Completed([str(word) for word in argv], 1, "", "VBoxManage: error: it was made to fail\n")
        done = run(argv, input=input, timeout=timeout, cwd=cwd, env=env, check=check)
        if self.calls == self.number:
            return Completed(done.argv, 1, done.stdout, "VBoxManage: error: it was made to fail\n")
        return done


@pytest.mark.parametrize(
    ("number", "when"),
    # The first two only read.
    [*((n, "before") for n in range(1, CALLS_OF_CREATE + 1)), *((n, "after") for n in range(3, CALLS_OF_CREATE + 1))],
)
def test_create_is_undone_whichever_call_fails(rig: Rig, make: Make, number: int, when: str) -> None:
    driver = make(via=Failing(number, when))
    with pytest.raises(VBoxFailed, match="made to fail"):
        driver.create()
    lifecycle.undo(Instance(driver.machine, driver.folder))
    assert rig.leftovers() == []
    assert list(driver.folder.path.iterdir()) == []


def test_create_makes_as_many_calls_as_are_made_to_fail(make: Make) -> None:
    counting = Failing(0, "")
    make(via=counting).create()
    assert counting.calls == CALLS_OF_CREATE


@pytest.mark.parametrize("number", [4, 8])
def test_create_goes_on_after_one_that_was_killed(rig: Rig, make: Make, number: int) -> None:
    killed = make(via=Failing(number, "after"))
    with pytest.raises(VBoxFailed):
        killed.create()
    driver = VirtualBox(killed.machine, killed.folder, run)
    driver.create()
    assert "SATA-1-0" in show(rig, driver).media


def test_remove_finds_a_machine_that_was_renamed(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    rig("modifyvm", driver.uuid, "--name", 'a "new" name')
    driver.remove()
    assert rig.leftovers() == []


def test_remove_of_a_machine_whose_settings_are_gone(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    Path(show(rig, driver).config).unlink()
    # VBoxSVC notices when it looks at the machine anew.
    for process in rig.processes():
        process.kill()
        process.wait(10)
    assert driver.state() is State.ERROR
    driver.remove()
    assert rig.leftovers() == []


def test_remove_without_a_machine_json(rig: Rig, make: Make) -> None:
    driver, other = make(), make("other")
    driver.create()
    other.create()
    lifecycle.undo_unknown(driver.folder)
    assert [line for line in rig("list", "vms").splitlines() if line] == [f'"other" {{{other.uuid}}}']


def test_what_is_anothers_stays(rig: Rig, make: Make) -> None:
    folder = rig.share / "another"
    rig("createvm", "--name", "dev", "--basefolder", folder, "--register")
    rig("createmedium", "disk", "--filename", folder / "photos.vdi", "--size", "10")
    driver = make()
    driver.create()
    rig("storagectl", driver.uuid, "--name", "SATA", "--portcount", "4")
    rig(
        *("storageattach", driver.uuid, "--storagectl", "SATA", "--port", "3", "--device", "0"),
        *("--type", "hdd", "--medium", folder / "photos.vdi"),
    )
    driver.remove()
    assert (folder / "photos.vdi").exists()
    assert rig("list", "vms").startswith('"dev" {')
    rig("unregistervm", "dev", "--delete")
    if "photos" in rig("list", "hdds"):
        rig("closemedium", "disk", folder / "photos.vdi")


def test_a_linked_clone_keeps_its_parent(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    driver.snapshot("s1")
    rig(
        *("clonevm", driver.uuid, "--snapshot", "s1", "--options", "link", "--name", "clone"),
        *("--basefolder", rig.share / "clones", "--register"),
    )
    with pytest.raises(DriverFailed, match="linked clone"):
        driver.remove()
    assert driver.state() is State.STOPPED
    rig("unregistervm", "clone", "--delete")
    driver.remove()
    assert rig.leftovers() == []


def test_snapshots_of_a_machine_that_is_off(make: Make) -> None:
    driver = make()
    driver.create()
    for name in ("first", 'a "second" one\\'):
        driver.snapshot(name)
    assert [(one.name, one.running) for one in driver.snapshots()] == [("first", False), ('a "second" one\\', False)]
    driver.restore("first")
    assert driver.state() is State.STOPPED
    # The machine as it is now and "second" both build on it.
    with pytest.raises(DriverFailed, match="that two others"):
        driver.forget("first")
    driver.forget('a "second" one\\')
    driver.forget("first")
    assert driver.snapshots() == []
    with pytest.raises(DriverFailed, match="is not currently running"):
        driver.suspend()


def test_without_the_network_driver_a_host_only_card_fails_and_nothing_is_left(rig: Rig, make: Make) -> None:
    driver = make(hostonly=True)
    with pytest.raises(VBoxFailed, match="network driver isn't loaded"):
        driver.create()
    lifecycle.undo(Instance(driver.machine, driver.folder))
    assert rig.leftovers() == []


def test_a_bridged_card(rig: Rig, make: Make) -> None:
    names = [block["Name"] for block in parse.blocks(rig("list", "bridgedifs"))]
    if not names:
        pytest.skip("this host has no interface to bridge to")
    driver = make(bridged=names[0])
    assert driver.check() == []
    driver.create()
    fields = show(rig, driver).fields
    assert (fields["nic2"], fields["bridgeadapter2"], fields["nictype2"]) == ("bridged", names[0], "virtio")
    with pytest.raises(CheckFailed, match="no network interface 'nosuch'"):
        make(bridged="nosuch").check()


def test_efi(rig: Rig, make: Make) -> None:
    driver = make(firmware="efi")
    driver.create()
    assert show(rig, driver).fields["firmware"] == "EFI"


def test_a_machine_that_was_removed_behind_our_back(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    rig("unregistervm", driver.uuid, "--delete")
    with pytest.raises(DriverFailed, match="no longer registered in VirtualBox"):
        driver.state()
    driver.kill()
    driver.remove()


def orphans(*words: str) -> list[dict[str, object]]:
    """What doctor says of virtual machines that are left."""
    argv = [sys.executable, "-m", "machine", "doctor", "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    return [one for one in json.loads(done.stdout) if one["check"] == "orphans" and one["level"] != "ok"]


def test_doctor_finds_and_clears_one_without_a_record(rig: Rig, make: Make) -> None:
    driver, other = make(), make("other")
    for one in (driver, other):
        one.create()
    other.folder.config.write_text(spec.dumps(other.machine))
    # Another program's, in the same folder.
    rig("createvm", "--name", "theirs", "--basefolder", store.folder() / "theirs", "--register")
    (found,) = orphans()
    assert found["text"] == f"virtualbox: the virtual machine dev ({driver.uuid}): no machine in the store uses it"
    assert (found["level"], found["hint"]) == ("error", "machine doctor --repair")
    assert driver.state() is State.STOPPED
    (found,) = orphans("--repair")
    assert found["repaired"]
    assert not driver.folder.path.exists()
    assert orphans() == []
    left = rig("list", "vms")
    assert (driver.uuid in left, other.uuid in left, '"theirs"' in left) == (False, True, True)
    rig("unregistervm", "theirs", "--delete")
    other.remove()
    assert rig.leftovers() == []


def test_doctor_finds_and_clears_one_whose_folder_was_removed(rig: Rig, make: Make) -> None:
    driver = make()
    driver.create()
    shutil.rmtree(driver.folder.path)
    # VBoxSVC notices when it looks at the machine anew.
    for process in rig.processes():
        process.kill()
        process.wait(10)
    (found,) = orphans("--repair")
    assert str(found["text"]).startswith(
        f"virtualbox: the virtual machine dev ({driver.uuid}), whose files no longer exist"
    )
    assert found["repaired"]
    assert rig.leftovers() == []
    assert orphans() == []


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_docker_machines_is_taken_over_and_stays(rig: Rig, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make()  # for its store
    old_store = paths.store() / "docker" / "machine"
    theirs = old_store / "machines" / "old"
    rig("createvm", "--name", "old", "--basefolder", theirs, "--ostype", "Linux26_64", "--register")
    rig("createvm", "--name", "old", "--basefolder", rig.share / "another", "--register")
    rig("modifyvm", theirs / "old" / "old.vbox", "--natpf1", "ssh,tcp,127.0.0.1,40123,,22")
    told = {"IPAddress": "192.168.99.100", "SSHUser": "docker", "SSHPort": 40123}
    config = {"DriverName": "virtualbox", "Name": "old", "Driver": told}
    (theirs / "config.json").write_text(json.dumps(config))
    before = rig("list", "vms")
    settings = (theirs / "old" / "old.vbox").read_bytes()

    (found,) = [found for _, found in takeover.find(old_store)]
    assert isinstance(found, takeover.ImportableMachine)
    assert (found.machine.driver, found.note) == ("virtualbox-adopted", "")
    # Nothing listens at its address.
    monkeypatch.setattr(existing_host, "pin", lambda folder, *_: folder.known_hosts.write_text("pinned"))
    takeover.take(found, Silent())
    machine, folder = store.load("old"), store.folder_of("old")
    existing = Instance(machine, folder).driver
    assert existing.state() is State.STOPPED
    assert existing.address() == Address("192.168.99.100", 2376, 22)
    assert existing.warnings() == []
    progress = Noting()
    lifecycle.remove("old", progress)
    assert "stays in VirtualBox" in progress.notes[0]
    assert store.names() == []
    assert rig("list", "vms") == before
    assert (theirs / "old" / "old.vbox").read_bytes() == settings

    rig("unregistervm", machine.uuid, "--delete")
    (found,) = [found for _, found in takeover.find(old_store)]
    assert isinstance(found, takeover.ImportableMachine)
    assert found.machine.driver == "generic"
    assert "its virtual machine doesn't exist" in found.note
    rig("unregistervm", "old", "--delete")


def test_a_disk_that_is_full(make: Make) -> None:
    driver = make()
    with pytest.raises(VBoxFailed):
        VirtualBox(Machine(**{**vars(driver.machine), "disk_mib": 1 << 50}), driver.folder, run).create()


def test_an_identifier_without_a_machine(rig: Rig, make: Make, tmp_path: Path) -> None:
    """A home that isn't VirtualBox's at all."""
    lifecycle.undo_unknown(MachineFolder(tmp_path / "machines" / "x"))
    assert rig.leftovers() == []


def test_vboxmanage_says_the_same_on_both_sides(rig: Rig) -> None:
    done = subprocess.run(["VBoxManage", "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert parse.version(done.stdout) == parse.version(rig("--version"))

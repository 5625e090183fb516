from collections.abc import Callable
from pathlib import Path

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused, transcript
from machine.drivers.virtualbox import VirtualBox, driver, vboxmanage
from machine.drivers.virtualbox.options import options_of

from machine.driver import Snapshots, State, Suspend
from machine.errors import DriverFailed, NoSuchImage, WaitTimeout
from machine.run import Completed
from tests.unit.virtualbox.conftest import Make

RULES = (
    'Forwarding(0)="docker,tcp,127.77.1.2,2375,,2375"',
    'Forwarding(1)="ssh,tcp,127.77.1.2,22,,22"',
)
GONE = transcript("main-showvminfo-unknown")
SNAPSHOTS = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/"><Machine>
<Snapshot uuid="{aaaaaaaa-0000-4000-8000-000000000001}" name="off" timeStamp="2026-11-24T04:26:05Z"><Snapshots>
<Snapshot uuid="{aaaaaaaa-0000-4000-8000-000000000002}" name="on" timeStamp="2026-11-24T05:00:00Z" stateFile="x.sav"/>
</Snapshots></Snapshot></Machine></VirtualBox>
"""


@pytest.fixture(autouse=True)
def every_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.docker.ports.why_not", lambda *_: "")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the image that the machines of `make` have."""
    monkeypatch.setenv("MACHINE_IMAGES_PATH", str(tmp_path / "images"))
    file = tmp_path / "images" / "image"  # the digest is ""
    file.parent.mkdir()
    file.write_bytes(b"iso")
    return file


@pytest.fixture
def with_snapshots(run: Scripted, tmp_path: Path) -> Callable[[str], None]:
    config = tmp_path / "dev.vbox"
    config.write_text(SNAPSHOTS)

    def put(state: str) -> None:
        run.answer("showvminfo", info(state, config=str(config)))

    return put


def test_what_it_can() -> None:
    assert issubclass(VirtualBox, Suspend)
    assert issubclass(VirtualBox, Snapshots)


def test_create(make: Make, run: Scripted, tmp_path: Path) -> None:
    made = make(no_share=False, share_folder=f"{tmp_path}:/mnt/host")
    folder = made.folder.path
    run.answer("showvminfo", GONE)
    run.answer("--version", Completed([], 0, "7.2.22r1\n", ""))
    made.create()

    assert [call[0] for call in run.calls] == [
        *("showvminfo", "--version", "createvm", "modifyvm", "storagectl", "createmedium"),
        *("sharedfolder", "setextradata", "storageattach"),
    ]
    assert run.said("createvm") == [
        [
            "createvm",
            "--name",
            "dev",
            "--uuid",
            UUID,
            "--ostype",
            "Linux26_64",
            "--basefolder",
            str(folder),
            "--register",
        ]
    ]
    [modify] = run.said("modifyvm")
    for words in (
        ["--memory", "2048"],
        ["--cpus", "2"],
        ["--uart1", "0x3F8", "4", "--uartmode1", "file", str(made.folder.console)],
        ["--nictype1", "virtio"],
        ["--macaddress1", "5254000a0b0c"],
        ["--natpf1", "docker,tcp,127.77.1.2,2375,,2375", "--natpf1", "ssh,tcp,127.77.1.2,22,,22"],
        ["--natdnshostresolver1", "off"],
        ["--audio-driver", "none", "--vrde", "off"],
        ["--rtcuseutc", "on"],
        ["--paravirtprovider", "kvm"],
    ):
        at = modify.index(words[0])
        assert modify[at : at + len(words)] == words
    assert run.said("createmedium") == [
        ["createmedium", "disk", "--filename", str(folder / "disk.vdi"), "--size", "20000", "--format", "VDI"]
    ]


def test_options(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", GONE)
    run.answer("--version", Completed([], 0, "6.1.50r1\n", ""))
    make(host_dns_resolver=True, no_dns_proxy=True, nat_nictype="82540EM", firmware="efi").create()
    text = " ".join(run.said("modifyvm")[0])
    assert "--natdnshostresolver1 on" in text
    assert "--natdnsproxy1 off" in text
    assert "--nictype1 82540EM" in text
    assert "--firmware efi" in text
    assert "--audio none" in text  # what --audio-driver was before 7.0


def test_an_arm_machine(make: Make) -> None:
    made = make()
    words = driver.settings.create(made.machine, made.folder, arm=True)
    assert "--platform-architecture arm --ostype Debian_arm64" in " ".join(words)
    text = " ".join(driver.settings.modify(made.machine, made.folder, made.options, (7, 2, 0), arm=True))
    assert "--firmware efi" in text
    assert "--hwvirtex" not in text


def test_create_of_a_machine_that_is_there(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", info("poweroff", '"SATA-1-0"="/srv/dev/disk.vdi"'))
    make().create()
    assert [call[0] for call in run.calls] == ["showvminfo"]


def test_create_of_a_machine_that_is_half_there(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", info("poweroff"))
    run.answer("list vms", Completed([], 0, f'"dev" {{{UUID}}}\n', ""))
    make().create()
    assert run.said(f"unregistervm {UUID} --delete")
    assert run.said("createvm")


def test_options_of_a_newer_version_are_passed_over(make: Make) -> None:
    assert options_of(make(of_tomorrow="x", ui_type="gui").machine).ui_type == "gui"


def test_start_brings_the_machine_in_line(make: Make, run: Scripted, image: Path) -> None:
    made = make(memory_mib=4096)
    made.folder.seed.write_bytes(b"seed")
    made.folder.console.write_text("yesterday")
    stale = ('Forwarding(2)="tcp-8080,tcp,127.77.1.2,8080,,8080"', 'Forwarding(3)="mine,tcp,127.0.0.1,9,,9"')
    run.answer("showvminfo", info("poweroff", 'Forwarding(0)="docker,tcp,127.77.1.9,2375,,2375"', *stale))
    made.start()

    assert [call for call in run.calls if call[0] != "showvminfo"] == [
        *(
            [*f"storageattach {UUID} --storagectl SATA --port {port} --device 0 --type dvddrive --medium".split(), path]
            for port, path in (("0", str(made.folder / ".iso")), ("2", str(made.folder.seed)))
        ),
        [
            *("modifyvm", UUID, "--memory", "4096", "--natpf1", "delete", "docker", "--natpf1", "delete", "tcp-8080"),
            *("--natpf1", "docker,tcp,127.77.1.2,2375,,2375", "--natpf1", "ssh,tcp,127.77.1.2,22,,22"),
        ],
        ["startvm", UUID, "--type", "headless"],
        ["(helper)"],
    ]
    assert (made.folder / "console.log.1").read_text() == "yesterday"
    assert (made.folder / ".iso").samefile(image)


def test_start_of_a_machine_that_is_in_line(make: Make, run: Scripted, image: Path) -> None:
    made = make()
    made.folder.seed.write_bytes(b"seed")
    media = (f'"SATA-0-0"="{made.folder / ".iso"}"', f'"SATA-2-0"="{made.folder.seed}"')
    run.answer("showvminfo", info("aborted", *RULES, *media))
    assert not made.start()
    assert [call[0] for call in run.calls] == ["showvminfo", "startvm", "(helper)"]


def test_the_image_is_copied_where_it_cant_be_linked(
    make: Make, run: Scripted, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(driver.os, "link", refuse)
    run.answer("showvminfo", info())
    made = make()
    made.start()
    assert (made.folder / ".iso").read_bytes() == b"iso"


def test_start_without_its_image(make: Make, run: Scripted, image: Path) -> None:
    image.unlink()
    run.answer("showvminfo", info())
    with pytest.raises(NoSuchImage):
        make().start()
    assert not run.said("startvm")


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        ("running", [["(helper)"]]),
        ("paused", [["controlvm", UUID, "resume"], ["(helper)"]]),
        ("saved", [["startvm", UUID, "--type", "headless"], ["(helper)"]]),
    ],
)
def test_start_goes_on(make: Make, run: Scripted, state: str, calls: list[list[str]]) -> None:
    run.answer("showvminfo", info(state))
    assert make().start() is (state == "saved")
    assert run.calls[1:] == calls


@pytest.mark.parametrize("state", ["gurumeditation", "inaccessible"])
def test_start_of_a_machine_that_has_broken(make: Make, run: Scripted, state: str) -> None:
    run.answer("showvminfo", info(state))
    with pytest.raises(DriverFailed, match=state) as caught:
        make().start()
    assert caught.value.hint == "machine kill dev"


@pytest.mark.parametrize("state", ["poweroff", "saved"])
def test_start_on_a_port_that_is_taken(
    make: Make, run: Scripted, image: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr("machine.docker.ports.why_not", lambda protocol, host, port: "it rains" if port == 2375 else "")
    run.answer("showvminfo", info(state))
    with pytest.raises(DriverFailed, match="port 2375, for Docker, can't be opened: it rains"):
        make().start()
    assert not run.said("startvm")


def test_start_explains(make: Make, run: Scripted, image: Path) -> None:
    run.answer("showvminfo", info())
    run.answer("startvm", transcript("stock-hardened-startvm"))
    with pytest.raises(DriverFailed, match="kernel driver isn't loaded"):
        make().start()
    assert ["(helper)"] not in run.calls


def test_a_machine_that_virtualbox_has_forgotten(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", GONE)
    made = make()
    for act in (made.start, made.state, made.snapshots):
        with pytest.raises(DriverFailed, match="no longer registered in VirtualBox") as caught:
            act()
        assert "machine rm dev" in caught.value.hint
    made.kill()
    assert made.diagnosis() == "the machine is no longer registered in VirtualBox"


def test_stop_presses_the_button(make: Make, run: Scripted) -> None:
    run.answer("controlvm", transcript("storage-controlvm-poweroff-off"))
    make().stop()
    assert run.said("controlvm") == [["controlvm", UUID, "acpipowerbutton"]]


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        ("poweroff", []),
        ("aborted", []),
        ("saved", [["discardstate", UUID]]),
        ("running", [["controlvm", UUID, "poweroff"]]),
        ("paused", [["controlvm", UUID, "poweroff"]]),
        ("gurumeditation", [["controlvm", UUID, "poweroff"]]),
    ],
)
def test_kill(make: Make, run: Scripted, state: str, calls: list[list[str]]) -> None:
    run.answer("showvminfo", info(state), info("poweroff"))
    make().kill()
    assert [call for call in run.calls if call[0] != "showvminfo"] == calls


def test_kill_of_a_machine_that_doesnt_listen(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", info("running"), info("running"), info("aborted"))
    run.answer("controlvm", refused("no answer", "E_FAIL"))
    make().kill()
    assert run.said("startvm") == [["startvm", UUID, "--type", "emergencystop"]]


def test_kill_of_a_machine_that_has_just_gone_off(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", info("running"), info("poweroff"))
    run.answer("controlvm", transcript("storage-controlvm-poweroff-off"))
    make().kill()
    assert not run.said("startvm")


def test_kill_has_a_deadline(make: Make, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vboxmanage, "POWER_OFF", 0.05)
    run.answer("showvminfo", info("running"))
    with pytest.raises(WaitTimeout, match="to switch the machine off"):
        make().kill()


def test_suspend(make: Make, run: Scripted) -> None:
    make().suspend()
    assert run.said("controlvm") == [["controlvm", UUID, "savestate"]]


def test_snapshots(make: Make, with_snapshots: Callable[[str], None], run: Scripted) -> None:
    with_snapshots("running")
    made = make()
    assert [(one.name, one.running) for one in made.snapshots()] == [("off", False), ("on", True)]
    made.snapshot("new")
    assert run.said("snapshot") == [["snapshot", UUID, "take", "new"]]
    with pytest.raises(DriverFailed, match='the snapshot "on" already exists'):
        made.snapshot("on")
    made.forget("off")
    assert run.calls[-1] == ["snapshot", UUID, "delete", "aaaaaaaa-0000-4000-8000-000000000001"]
    for act in (made.forget, made.restore):
        with pytest.raises(DriverFailed, match='no snapshot "nope"'):
            act("nope")


def test_restore_of_a_snapshot_of_a_running_machine(
    make: Make, with_snapshots: Callable[[str], None], run: Scripted
) -> None:
    with_snapshots("saved")
    make().restore("on")
    assert [call for call in run.calls if call[0] != "showvminfo"] == [
        ["discardstate", UUID],
        ["snapshot", UUID, "restore", "aaaaaaaa-0000-4000-8000-000000000002"],
        ["startvm", UUID, "--type", "headless"],
        ["(helper)"],
    ]


def test_restore_of_a_snapshot_of_a_machine_that_was_off(
    make: Make, with_snapshots: Callable[[str], None], run: Scripted
) -> None:
    with_snapshots("poweroff")
    make().restore("off")
    assert not run.said("startvm")


def test_diagnosis_shows_the_faults_of_the_log(make: Make, run: Scripted, tmp_path: Path) -> None:
    (tmp_path / "VBox.log").write_text("00:01 fine\n00:02 Guru Meditation -2403 (VERR_TRPM_DONT_PANIC)\n")
    run.answer("showvminfo", info("gurumeditation", f'LogFldr="{tmp_path}"'))
    assert make().diagnosis().splitlines() == [
        "VirtualBox says: gurumeditation",
        "VBox.log: 00:02 Guru Meditation -2403 (VERR_TRPM_DONT_PANIC)",
    ]


def test_state(make: Make, run: Scripted) -> None:
    run.answer("showvminfo", transcript("running-showvminfo-mr-saved"))
    assert make().state() is State.SAVED


def test_check(make: Make, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    run.answer("--version", Completed([], 0, "7.2.22r1\n", ""))
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert make(no_vtx_check=True).check() == []
    [note] = make(no_vtx_check=True, no_share=False).check()
    assert "isn't shared" in note


def test_an_export_whose_copy_fails_leaves_nothing(make: Make, run: Scripted, tmp_path: Path) -> None:
    """As on a full disk; and what VirtualBox knows of the copy is forgotten, whatever became of its file."""
    made = make()
    (made.folder / "disk.vdi").write_bytes(b"")
    current = tmp_path / "later.vdi"
    current.write_bytes(b"")
    run.answer("showvminfo", info("poweroff", f'SATA-1-0="{current}"'))
    copy = made.folder / ".export-x" / "disk.vdi"
    foreign = tmp_path / ".export-y" / "disk.vdi"
    listed = "".join(
        f"UUID:           {path.parent.name}\nLocation:       {path}\n\n" for path in (copy, foreign, current)
    )
    run.answer("list hdds", Completed([], 0, listed, ""))
    run.answer("clonemedium", refused("VERR_DISK_FULL", "VBOX_E_FILE_ERROR"))
    with pytest.raises(DriverFailed), made.export():
        pass
    assert not list(made.folder.path.glob(".export-*"))
    assert run.said("closemedium") == [["closemedium", "disk", ".export-x", "--delete"]] * 2


def test_a_disk_that_import_has_brought_is_used(make: Make, run: Scripted) -> None:
    made = make()
    (made.folder / "disk.vdi").write_bytes(b"theirs")
    run.answer("showvminfo", GONE)
    run.answer("--version", Completed([], 0, "7.2.22r1\n", ""))
    made.create()
    assert not run.said("createmedium")
    assert run.said("storageattach")[-1][-1] == str(made.folder / "disk.vdi")

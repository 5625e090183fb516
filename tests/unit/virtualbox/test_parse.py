import pytest
from fake_vboxmanage import transcript
from machine.drivers.virtualbox import parse
from machine.drivers.virtualbox.parse import Forward, Info

from machine.driver import Snapshot, State

VBOX = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.21-linux">
  <Machine uuid="{11111111-2222-4333-8444-555555555555}" name="dev">
    <Snapshot uuid="{aaaaaaaa-0000-4000-8000-000000000001}" name="two" timeStamp="2026-11-24T04:26:05Z">
      <Snapshots>
        <Snapshot uuid="{aaaaaaaa-0000-4000-8000-000000000002}" name="&quot;three&quot;" \
timeStamp="2026-11-24T05:00:00Z" stateFile="Snapshots/2026.sav"/>
        <Snapshot uuid="{aaaaaaaa-0000-4000-8000-000000000003}" name="one" timeStamp="2026-11-24T04:00:00Z"/>
      </Snapshots>
    </Snapshot>
  </Machine>
</VirtualBox>
"""


@pytest.mark.parametrize(
    ("recorded", "state"),
    [
        ("running-showvminfo-mr-running", State.RUNNING),
        ("running-showvminfo-mr-paused", State.PAUSED),
        ("running-showvminfo-mr-saved", State.SAVED),
        ("running-showvminfo-mr-aborted", State.STOPPED),
        ("main-showvminfo-fresh-machinereadable", State.STOPPED),
    ],
)
def test_the_state_of_a_real_machine(recorded: str, state: State) -> None:
    assert Info(parse.machinereadable(transcript(recorded).stdout)).state is state


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("gurumeditation", State.ERROR),
        ("inaccessible", State.ERROR),
        ("aborted-saved", State.SAVED),
        ("saving", State.STOPPING),
        ("restoring", State.STARTING),
        ("onlinesnapshotting", State.RUNNING),
        ("deletingsnapshotlivepaused", State.PAUSED),
        ("a word of tomorrow", State.ERROR),
    ],
)
def test_states_that_are_hard_to_record(word: str, state: State) -> None:
    assert Info({"VMState": word}).state is state


def test_a_machine_with_disks_rules_and_snapshots() -> None:
    info = Info(parse.machinereadable(transcript("storage-showvminfo-mr-snapshots").stdout))

    assert info.fields["ostype"] == "Linux 2.6 / 3.x / 4.x / 5.x (64-bit)"
    assert info.fields["memory"] == "1024"
    assert info.config == "/srv/m2/dev/dev.vbox"
    assert info.logs == "/srv/m2/dev/Logs"
    assert info.media == {
        "SATA-0-0": "/srv/m2/boot.iso",
        "SATA-1-0": "/srv/m2/dev/Snapshots/{96a08767-924d-4c73-9c76-e254adffc264}.vmdk",
    }
    assert info.forwards == [
        Forward("docker", "tcp", "127.0.0.1", 42376, 2376),
        Forward("ssh", "tcp", "127.0.0.1", 40022, 22),
    ]
    assert str(info.forwards[0]) == "docker,tcp,127.0.0.1,42376,,2376"


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('name="a \\"b\\" c"', "name", 'a "b" c'),
        ('name="ends in \\\\"', "name", "ends in \\"),
        ('CfgFile="C:\\\\Users\\\\Ann Lee\\\\x.vbox"', "CfgFile", r"C:\Users\Ann Lee\x.vbox"),
        ('CfgFile="C:\\Users\\Ann Lee\\x.vbox"', "CfgFile", r"C:\Users\Ann Lee\x.vbox"),  # 6.0 escaped nothing
        ('description="one\ntwo=2\nthree"', "description", "one\ntwo=2\nthree"),
        ('"SATA-1-0"="/a=b.vdi"', "SATA-1-0", "/a=b.vdi"),
        ('natnet1=""', "natnet1", ""),
        ("cpus=2", "cpus", "2"),
    ],
)
def test_quoting(line: str, key: str, value: str) -> None:
    assert parse.machinereadable(f'before=1\n{line}\nVMState="running"\n') == {
        "before": "1",
        key: value,
        "VMState": "running",
    }


def test_a_disk_of_windows_is_a_medium() -> None:
    drives = parse.machinereadable('"SATA-1-0"="D:\\\\vm\\\\disk.vdi"\n"SATA-2-0"="none"\n"SATA-0-0"="emptydrive"\n')
    assert Info(drives).media == {"SATA-1-0": r"D:\vm\disk.vdi"}


def test_paragraphs() -> None:
    disks = parse.blocks(transcript("storage-list-hdds-tree").stdout)
    assert disks[0]["Location"] == "/srv/m2/dev/disk.vmdk"
    assert disks[1]["Parent UUID"] == disks[0]["UUID"]
    assert [block["Name"] for block in parse.blocks(transcript("netns-list-hostonlyifs").stdout)] == ["vboxnet0"]
    assert parse.blocks("") == []


def test_the_registered_machines() -> None:
    assert len(parse.registered(transcript("main-list-vms").stdout)) > 1
    one, two = "aaaaaaaa-0000-4000-8000-bbbbbbbbbbbb", "cccccccc-0000-4000-8000-dddddddddddd"
    assert parse.registered(f'"a "quoted" {{name}}" {{{one}}}\n"<inaccessible>" {{{two}}}\n') == [one, two]


@pytest.mark.parametrize(
    ("text", "found"), [("7.2.22_Debianr175245\n", (7, 2, 22)), ("6.1.50r161033", (6, 1, 50)), ("nonsense", None)]
)
def test_version(text: str, found: tuple[int, int, int] | None) -> None:
    assert parse.version(text) == found


def test_snapshots_oldest_first() -> None:
    assert parse.snapshots(VBOX) == [
        ("aaaaaaaa-0000-4000-8000-000000000003", Snapshot("one", "2026-11-24T04:00:00Z", False)),
        ("aaaaaaaa-0000-4000-8000-000000000001", Snapshot("two", "2026-11-24T04:26:05Z", False)),
        ("aaaaaaaa-0000-4000-8000-000000000002", Snapshot('"three"', "2026-11-24T05:00:00Z", True)),
    ]

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_lxc import UUID, Api, Recorder
from machine.drivers.lxc import Lxc, checks, container, layout, limits
from machine.drivers.lxc.launch import read
from machine.drivers.lxc.layout import Layout

from machine.driver import State
from machine.errors import CheckFailed, DriverFailed, NoSuchImage, ToolMissing
from machine.network import process
from machine.paths import Image, MachineFolder
from machine.spec import Address


@pytest.fixture
def running(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lxc]:
    """The same, up: its slirp4netns answers as soon as it was launched."""
    with started(lxc, monkeypatch):
        yield lxc


class started:
    def __init__(self, lxc: Lxc, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.lxc = Lxc(replace(lxc.machine, options=options), lxc.folder, lxc.run)
        self.monkeypatch = monkeypatch

    def __enter__(self) -> Lxc:
        original = container.Container._launch
        apis: list[Api] = []

        def launch(it: container.Container) -> None:
            original(it)
            apis.append(Api(it.layout.network_socket))

        self.monkeypatch.setattr(container.Container, "_launch", launch)
        self.lxc.start()
        self.apis = apis
        return self.lxc

    def __exit__(self, *_: object) -> None:
        for api in self.apis:
            api.close()


def test_create_makes_a_sparse_disk_once(lxc: Lxc, recorder: Recorder) -> None:
    lxc.create()
    disk = lxc.folder / "disk.img"
    assert (disk.stat().st_size, disk.stat().st_mode & 0o777) == (4096 << 20, 0o600)
    assert disk.stat().st_blocks == 0
    assert recorder.calls("mkfs.ext4")
    lxc.create()
    assert len(recorder.calls("mkfs.ext4")) == 1


def test_a_failed_file_system_leaves_no_disk(lxc: Lxc, recorder: Recorder) -> None:
    recorder.fails["mkfs.ext4"] = "no room"
    with pytest.raises(Exception, match="no room"):
        lxc.create()
    assert not (lxc.folder / "disk.img").exists()


def test_start_writes_what_launch_and_lxc_need(running: Lxc, recorder: Recorder) -> None:
    there = Layout(UUID)
    assert recorder.calls("launch") == [["launch", UUID]]
    assert there.machine.resolve() == running.folder.path.resolve()
    plan = read(there)
    assert (plan.offset, plan.disk, plan.memory_mib) == (2048, str(running.folder / "disk.img"), 1024)
    assert plan.binds == ()
    assert (there.seed / "hostname").read_text() == "dev\n"
    assert (there.seed / "tls/ca.pem").read_text() == "CA"
    config = there.config.read_text()
    assert f"lxc.idmap = u 0 {plan.first_id} 65536" in config
    assert f"lxc.rootfs.path = dir:{there.folder}/root" in config
    assert "lxc.cgroup.memory.limit_in_bytes = 1073741824" in config
    assert "lxc.cgroup.cpu.cfs_quota_us = 200000" in config
    assert str(running.folder.path) not in config, "a store's path may hold what LXC doesn't take"
    assert (there.folder / "network").stat().st_mode & 0o777 == 0o700
    assert running.state() is State.RUNNING


def test_a_container_on_a_network_has_a_second_card(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[tuple[Path, str]] = []
    monkeypatch.setattr(process, "ensure", lambda store, network: joined.append((store, network)))
    monkeypatch.setattr(container, "DHCP", 0.0)
    lxc.machine = replace(lxc.machine, network="lab", address=Address("127.77.5.2"))
    with started(lxc, monkeypatch) as dev:
        script = (Layout(UUID).folder / "network").read_text()
        assert f"-m machine.drivers.lxc.tap {UUID} " in script
        assert dev.lan().address == "10.77.5.2/24"
        assert joined == [(dev.folder.store, "lab")]


def test_a_container_on_no_network_has_none(running: Lxc) -> None:
    assert "lxc.tap" not in (Layout(UUID).folder / "network").read_text()
    assert running.lan().address == ""


@pytest.mark.parametrize(("has", "said"), [("10.77.5.2", 0), ("10.77.5.21", 1)])
def test_a_guest_that_doesnt_know_its_second_card(
    lxc: Lxc, monkeypatch: pytest.MonkeyPatch, has: str, said: int
) -> None:
    monkeypatch.setattr(process, "ensure", lambda store, network: None)
    monkeypatch.setattr(container.Container, "_await_address", lambda it, address: address in {"10.0.2.15", has})
    lxc.machine = replace(lxc.machine, network="lab", address=Address("127.77.5.2"))
    told: list[str] = []
    guest = started(lxc, monkeypatch)
    guest.lxc.say = told.append
    with guest:
        assert len([text for text in told if "isn't reached by other machines at 10.77.5.2:" in text]) == said


def test_the_console_of_the_run_before_is_kept(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    lxc.folder.console.write_text("of the last boot")
    with started(lxc, monkeypatch):
        assert lxc.folder.console.read_text() == ""
        assert (lxc.folder / "console.log.1").read_text() == "of the last boot"


def test_no_two_containers_have_the_same_ids(running: Lxc) -> None:
    first = Layout(UUID).first_id()
    assert first == 0x70000000
    assert container._free_ids() == first + 65536


def test_a_privileged_container_has_the_hosts_ids(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(lxc, monkeypatch, privileged=True):
        assert read(Layout(UUID)).first_id is None
        assert "idmap" not in Layout(UUID).config.read_text()


def test_limits_of_control_groups_2(lxc: Lxc) -> None:
    (limits.GROUPS / "cgroup.controllers").write_text("cpu memory\n")
    assert limits.of(lxc.machine) == {"lxc.cgroup2.memory.max": "1073741824", "lxc.cgroup2.cpu.max": "200000 100000"}


def test_a_failed_launch_leaves_nothing(lxc: Lxc, recorder: Recorder) -> None:
    recorder.fails["launch"] = "wrong fs type"
    with pytest.raises(DriverFailed, match="launch failed") as caught:
        lxc.start()
    assert "wrong fs type" in caught.value.details
    assert not Layout(UUID).folder.exists()


def test_start_waits_for_the_disk(lxc: Lxc, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "END", 0.1)
    recorder.loops = "/dev/loop3\n"
    with pytest.raises(Exception, match="earlier container to release"):
        lxc.start()
    assert not recorder.calls("launch")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("RUNNING", State.RUNNING),
        ("FROZEN", State.SAVED),
        ("STOPPED", State.STOPPED),
        ("STARTING", State.STARTING),
        ("ABORTING", State.STOPPING),
        ("what", State.ERROR),
    ],
)
def test_states(running: Lxc, recorder: Recorder, word: str, state: State) -> None:
    recorder.state = word
    assert running.state() is state


def test_a_machine_without_a_container_is_off_and_no_program_is_asked(lxc: Lxc, recorder: Recorder) -> None:
    assert lxc.state() is State.STOPPED
    assert recorder.ran == []


def test_suspend_freezes_and_start_goes_on(running: Lxc, recorder: Recorder) -> None:
    running.suspend()
    assert running.state() is State.SAVED
    assert running.start()
    assert len(recorder.calls("launch")) == 1


def test_a_frozen_machine_is_woken_to_stop(running: Lxc, recorder: Recorder) -> None:
    running.suspend()
    running.stop()
    assert [words[0] for words in recorder.ran[-3:]] == ["lxc-info", "lxc-unfreeze", "lxc-stop"]
    assert "--nokill" in recorder.ran[-1]


def test_kill_leaves_nothing(running: Lxc) -> None:
    group = limits.GROUPS / "memory" / f"lxc.monitor.{UUID}-1"
    shared = limits.GROUPS / "memory" / "lxc.pivot"
    for folder in (group / "below", shared):
        folder.mkdir(parents=True)
    running.kill()
    running.kill()
    assert running.state() is State.STOPPED
    assert not Layout(UUID).folder.exists()
    assert not group.exists()
    assert not shared.exists()


def test_only_slirp4netns_is_ended(running: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, _: ended.append(pid))
    Layout(UUID).network_pid.write_text("1")
    running.kill()
    assert ended == [], "process 1 is another program"


def test_a_copy_of_the_folder_leaves_the_container_alone(running: Lxc, tmp_path: Path) -> None:
    copy = Lxc(running.machine, MachineFolder(tmp_path), running.run)
    with pytest.raises(DriverFailed, match="this folder is a copy"):
        copy.state()
    copy.remove()
    assert running.state() is State.RUNNING


def test_a_folder_that_was_moved_keeps_its_container(running: Lxc, store: Path) -> None:
    moved = MachineFolder(running.folder.path.rename(store / "moved"))
    assert Lxc(running.machine, moved, running.run).state() is State.RUNNING


def test_a_folder_without_a_record_is_cleared(running: Lxc, recorder: Recorder) -> None:
    unknown = replace(running.machine, uuid="", address=None)
    Lxc(unknown, running.folder, running.run).remove()
    assert recorder.state == "STOPPED"
    assert not Layout(UUID).folder.exists()


def test_orphans_are_those_of_this_store(running: Lxc, recorder: Recorder, store: Path, tmp_path: Path) -> None:
    assert Lxc.orphans(store, [running.machine], running.run) == []
    assert Lxc.orphans(tmp_path, [], running.run) == []
    [orphan] = Lxc.orphans(store, [], running.run)
    assert (orphan.name, orphan.uuid) == ("dev", UUID)
    assert orphan.remove is not None
    orphan.remove()
    assert layout.containers() == []


def test_snapshots(running: Lxc, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = running.folder / "disk.img"
    disk.write_text("one")
    monkeypatch.setattr(container.Container, "inside", lambda _: ["nsenter"])
    running.snapshot("first")
    still, thaw = recorder.ran[-2:]
    assert (still[:3], thaw[-2]) == (["nsenter", "sh", "-c"], "--unfreeze")
    assert still[-2:] == [str(disk), str(running.folder / "snapshots/first/disk.img")]
    with pytest.raises(DriverFailed, match="already"):
        running.snapshot("first")
    disk.write_text("two")
    running.kill()
    running.snapshot("off")
    assert [(it.name, it.running) for it in running.snapshots()] == [("first", True), ("off", False)]
    running.restore("off")
    assert (running.state(), disk.read_text()) == (State.STOPPED, "two")
    running.restore("first")
    assert (running.state(), disk.read_text()) == (State.RUNNING, "one")
    running.forget("first")
    with pytest.raises(DriverFailed, match="no snapshot"):
        running.restore("first")
    with pytest.raises(DriverFailed, match="no snapshot"):
        running.forget("first")


def test_a_failed_copy_thaws_the_disk_and_is_no_snapshot(
    running: Lxc, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container.Container, "inside", lambda _: ["nsenter"])
    recorder.fails["sh"] = "No space left on device"
    with pytest.raises(Exception, match="No space left"):
        running.snapshot("first")
    assert "--unfreeze" in recorder.ran[-1]
    assert running.snapshots() == []


def test_sizes_change_at_once(running: Lxc, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container.Container, "inside", lambda _: ["nsenter"])
    (running.folder / "disk.img").touch()
    wanted = replace(running.machine, memory_mib=2048, cpus=1, disk_mib=8192)
    assert running.resize(wanted) == []
    assert [words[-2:] for words in recorder.calls("lxc-cgroup")] == [
        ["memory.limit_in_bytes", "2147483648"],
        ["cpu.cfs_period_us", "100000"],
        ["cpu.cfs_quota_us", "100000"],
    ]
    assert (running.folder / "disk.img").stat().st_size == 8192 << 20
    assert recorder.calls("resize2fs") == [["nsenter", "resize2fs", "/dev/loop7"]]
    recorder.fails["resize2fs"] = "Permission denied to resize filesystem"
    assert running.resize(replace(running.machine, disk_mib=9216)) == ["disk_mib"]
    assert (running.folder / "disk.img").stat().st_size == 9216 << 20
    recorder.fails["lxc-cgroup"] = "Device or resource busy"
    with pytest.raises(DriverFailed, match="its programs use more memory than that"):
        running.resize(replace(wanted, cpus=2, memory_mib=64))


def test_check_names_what_is_missing(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.packages.which", lambda tool: tool if tool == "apt-get" else None)
    packages = {"lxc-start": "lxc", "slirp4netns": "slirp4netns", "mkfs.ext4": "e2fsprogs"}
    for missing in checks.TOOLS:
        monkeypatch.setattr(checks, "which", lambda tool, missing=missing: None if tool == missing else f"/bin/{tool}")
        with pytest.raises(ToolMissing, match=f"{missing} was not found") as caught:
            lxc.check()
        assert caught.value.hint.endswith(f"apt-get install -y {packages[missing]}" if missing in packages else "PATH")


@pytest.fixture
def able(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> Lxc:
    """On a host that has all that is needed."""
    monkeypatch.setattr(checks, "which", lambda tool: f"/bin/{tool}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(checks, "_check_kernel", lambda run: None)
    monkeypatch.setattr(checks.platform, "release", lambda: "6.8.0-31-generic")
    return lxc


def test_an_ordinary_user_is_refused_in_words(able: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    able.check()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(CheckFailed, match="only root can make a system container") as caught:
        able.check()
    assert caught.value.hint.startswith("sudo ")


def test_an_old_kernel_takes_privileged_containers_only(able: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.platform, "release", lambda: "6.1.0-18-amd64")
    with pytest.raises(CheckFailed, match=r"needs 6\.2"):
        able.check()
    privileged = Lxc(replace(able.machine, options={"privileged": True}), able.folder, able.run)
    assert "can become root here" in privileged.check()[0]


def test_an_older_image_is_refused(able: Lxc) -> None:
    Image(able.machine.image).root_offset.unlink()
    with pytest.raises(NoSuchImage, match="can't run in a system container"):
        able.check()


def test_elsewhere_than_on_linux_nothing_is_asked(
    lxc: Lxc, recorder: Recorder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    lxc.remove()
    assert lxc.state() is State.STOPPED
    assert Lxc.orphans(store, [], lxc.run) == []
    assert not Lxc.is_available()
    with pytest.raises(CheckFailed, match="need Linux"):
        lxc.check()
    assert recorder.ran == []


def test_a_start_with_control_groups_2(lxc: Lxc, monkeypatch: pytest.MonkeyPatch) -> None:
    (limits.GROUPS / "cgroup.controllers").write_text("cpu memory\n")
    with started(lxc, monkeypatch):
        config = Layout(UUID).config.read_text()
        assert "lxc.cgroup2.memory.max = 1073741824" in config
        assert "lxc.cgroup2.cpu.max = 200000 100000" in config
        assert "lxc.cgroup." not in config


@pytest.mark.parametrize("is_due", [True, False])
def test_it_is_said_that_the_image_is_unpacked(
    lxc: Lxc, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, is_due: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr(container.roots, "is_due", lambda target, ids: is_due)
    lxc.say = said.append
    recorder.fails["launch"] = "no more is needed"
    with pytest.raises(DriverFailed):
        lxc.start()
    assert bool([text for text in said if "unpacking the image" in text]) is is_due

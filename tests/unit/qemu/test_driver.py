import contextlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import QEMU, Recorder, guest, process
from fake_qmp import HANG_UP, agent, monitor
from machine.drivers.qemu import Qemu, driver, migration, template_maker, vm
from machine.drivers.qemu.argv import SUSPENDED, SUSPENDED_LAYOUT, Memory

from machine import acceleration, files, packages, resources
from machine import driver as contract
from machine.docker import ports
from machine.driver import State
from machine.errors import CheckFailed, DriverFailed, NoSuchImage, ToolMissing
from machine.paths import Image, MachineFolder
from machine.spec import Address


def with_options(qemu: Qemu, **options: Any) -> Qemu:
    return Qemu(replace(qemu.machine, options=options), qemu.folder, qemu.run)


def test_it_is_a_driver(qemu: Qemu) -> None:
    assert isinstance(qemu, contract.Driver)
    assert (qemu.name, qemu.loopback, qemu.address()) == ("qemu", True, Address("127.77.0.2"))


def test_check_tells_why_a_machine_is_emulated(qemu: Qemu, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "which", lambda tool: None if tool == "lxc-start" else f"/bin/{tool}")
    assert qemu.check() == [acceleration.why_not("tcg")]
    monkeypatch.setattr(driver, "which", lambda tool: f"/bin/{tool}")
    assert qemu.check()[0].endswith("at this computer's own speed: --driver lxc")
    assert with_options(qemu, accelerator="kvm").check() == []
    assert recorder.ran == []


def for_arm(qemu: Qemu, **options: Any) -> Qemu:
    """The same machine with ARM's processors, on the same x86_64 host."""
    return Qemu(replace(qemu.machine, architecture="aarch64", options=options), qemu.folder, qemu.run)


def test_the_other_architecture_is_emulated_whatever_works_here(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "choose", lambda *_: "kvm")
    arm = for_arm(qemu)
    assert arm.check() == [acceleration.why_not("tcg", "aarch64")]
    assert (arm.architecture(), arm.host_architecture()) == ("aarch64", "x86_64")
    host = arm.vm.host()
    assert host.binary == "/usr/bin/qemu-system-aarch64"
    assert (host.architecture, host.accelerator, host.cpu) == ("aarch64", "tcg", "max,pauth-impdef=on")
    words = arm.vm.argv(Memory(512))
    assert words[words.index("-machine") + 1].startswith("virt,")
    assert "clearcpuid=cx16" not in words[words.index("-append") + 1]
    assert template_maker.recipe_for(arm.vm) != template_maker.recipe_for(qemu.vm)


def test_no_accelerator_runs_the_other_architecture(qemu: Qemu) -> None:
    with pytest.raises(CheckFailed, match="kvm runs x86_64 processors only, and the machine has aarch64"):
        for_arm(qemu, accelerator="kvm").check()
    # A machine that moved here from a host of its own kind.
    assert for_arm(qemu, accelerator="kvm").vm.host().accelerator == "tcg"
    assert for_arm(qemu, accelerator="tcg").check()


def test_the_emulator_of_the_other_architecture_is_missing(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "which", lambda tool: tool if tool == "apt-get" else None)
    for module in (driver, vm):
        monkeypatch.setattr(module, "which", lambda tool: None if "aarch64" in tool else f"/bin/{tool}")
    with pytest.raises(ToolMissing, match="qemu-system-aarch64 was not found") as caught:
        for_arm(qemu).check()
    assert caught.value.hint.endswith("apt-get install -y qemu-system-arm qemu-utils")
    assert qemu.check()


def test_arm_boots_no_disk_of_others(qemu: Qemu) -> None:
    Image(qemu.machine.image).kernel.unlink()
    with pytest.raises(CheckFailed, match="only machineos boots"):
        for_arm(qemu).check()
    assert qemu.check()


def test_check_asks_which_accelerator_works(qemu: Qemu, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(acceleration, "choose", lambda *words: asked.append(words[:2]) or "kvm")
    assert with_options(qemu).check() == []
    assert asked == [(QEMU, store / "acceleration.json")]


def test_check_names_what_is_missing(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "which", lambda tool: tool if tool == "apt-get" else None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for missing in ("qemu-system-x86_64", "qemu-img"):
        for module in (driver, vm):
            monkeypatch.setattr(
                module, "which", lambda tool, missing=missing: None if tool == missing else f"/bin/{tool}"
            )
        with pytest.raises(ToolMissing, match=f"{missing} was not found") as caught:
            qemu.check()
        assert caught.value.hint.endswith("apt-get install -y qemu-system-x86 qemu-utils")


def test_a_folder_can_be_added_where_the_running_qemu_starts_its_server(qemu: Qemu, recorder: Recorder) -> None:
    assert not qemu.can_mount()
    with process(qemu.folder, "-netdev", "user,id=net"):
        assert not qemu.can_mount()
    qemu.start()
    (command,) = recorder.ran
    with process(qemu.folder, *command[command.index("-netdev") :]):
        assert qemu.can_mount()


def far_away(qemu: Qemu, tmp_path: Path) -> Qemu:
    """The same machine in a store whose path has no room for a socket."""
    folder = MachineFolder(tmp_path / ("x" * 100) / "machines" / "dev")
    folder.path.mkdir(parents=True)
    return Qemu(qemu.machine, folder, qemu.run)


def test_a_path_that_is_too_long_for_a_socket_is_no_hindrance(
    qemu: Qemu, tmp_path: Path, recorder: Recorder, detached: list[list[str]], links: Path
) -> None:
    far = far_away(qemu, tmp_path)
    far.check()
    assert not links.exists(), "a check writes nothing"
    far.start()
    (command,) = recorder.ran
    given = next(word for word in command if "qmp.sock" in word).partition("path=")[2].partition(",")[0]
    assert len(given) < 107
    assert f"{far.folder.path}/qemu.pid" in command
    with process(far.folder), monitor(Path(given), {"query-status": {"status": "running"}}):
        assert (far.folder / "qmp.sock").is_socket()
        assert far.state() is State.RUNNING
    far.remove()
    assert not links.exists()


def test_check_refuses_a_long_path_where_there_can_be_no_link(qemu: Qemu, tmp_path: Path, links: Path) -> None:
    links.mkdir(mode=0o777)
    links.chmod(0o777)
    with pytest.raises(CheckFailed, match=f"too long for a socket, and {links} isn't a folder of yours") as caught:
        far_away(qemu, tmp_path).check()
    assert "MACHINE_STORAGE_PATH" in caught.value.hint
    Qemu(qemu.machine, MachineFolder(links.parent / "dev"), qemu.run).check()


def test_windows_is_told_of_another_driver(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.sys, "platform", "win32")
    with pytest.raises(CheckFailed) as caught:
        qemu.check()
    assert "virtualbox" in caught.value.hint


def test_create_makes_a_disk_once(qemu: Qemu, folder: MachineFolder, recorder: Recorder) -> None:
    qemu.create()
    disk = folder / "disk.qcow2"
    assert recorder.ran == [["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1024M"]]
    disk.touch()
    qemu.create()
    assert len(recorder.ran) == 1


def test_start_runs_qemu_and_its_helper(
    qemu: Qemu, folder: MachineFolder, recorder: Recorder, detached: list[list[str]]
) -> None:
    folder.console.write_text("of the last boot")
    assert not qemu.start()
    (command,) = recorder.ran
    assert command[0] == QEMU
    assert command[command.index("-append") + 1].startswith("quiet ")
    assert command[command.index("-accel") + 1].startswith("tcg,")
    assert command[command.index("-cpu") + 1] == "max"
    assert detached == [[sys.executable, "-m", "machine.drivers.qemu", str(folder.path)]]
    assert not folder.console.exists()
    assert (folder / "console.log.1").read_text() == "of the last boot"


@pytest.mark.parametrize(("accelerator", "small"), [("tcg", 1), ("kvm", 0)])
def test_only_emulated_machines_do_without_huge_pages(
    qemu: Qemu, detached: list[list[str]], monkeypatch: pytest.MonkeyPatch, accelerator: str, small: int
) -> None:
    called: list[int] = []
    monkeypatch.setattr(vm, "use_small_pages", lambda: called.append(1))
    with_options(qemu, accelerator=accelerator).start()
    assert len(called) == small


def test_start_without_its_image(qemu: Qemu, detached: list[list[str]]) -> None:
    absent = Qemu(replace(qemu.machine, image="0" * 64), qemu.folder, qemu.run)
    with pytest.raises(NoSuchImage, match="000000000000"):
        absent.start()
    assert detached == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "qemu: -netdev user,id=net: Could not set up host forwarding rule 'tcp:127.77.0.2:2375-:2375'",
            "port 2375, for Docker, can't be opened: the user that runs QEMU may not open it on 127.77.0.2",
        ),
        ("qemu: Cannot allocate memory", "failed: qemu: Cannot allocate memory"),
    ],
)
def test_why_qemu_doesnt_start(
    qemu: Qemu, recorder: Recorder, detached: list[list[str]], stderr: str, message: str
) -> None:
    recorder.error = stderr
    with pytest.raises(DriverFailed, match=message) as caught:
        qemu.start()
    assert stderr in caught.value.details
    assert caught.value.hint
    assert detached == []


def test_start_goes_on_with_one_that_is_paused(
    qemu: Qemu, folder: MachineFolder, recorder: Recorder, running: object, detached: list[list[str]]
) -> None:
    with monitor(folder / "qmp.sock", {"query-status": {"status": "paused"}}) as server:
        qemu.start()
    assert server.commands[-2:] == ["qmp_capabilities", "cont"]
    assert (recorder.ran, detached) == ([], [])


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", State.RUNNING),
        ("paused", State.PAUSED),
        ("suspended", State.PAUSED),
        ("finish-migrate", State.PAUSED),
        ("postmigrate", State.PAUSED),
        ("save-vm", State.PAUSED),
        ("restore-vm", State.PAUSED),
        ("shutdown", State.STOPPING),
        ("prelaunch", State.STARTING),
        ("inmigrate", State.STARTING),
        ("guest-panicked", State.ERROR),
        ("io-error", State.ERROR),
    ],
)
def test_the_state_is_what_the_monitor_says(
    qemu: Qemu, folder: MachineFolder, running: object, status: str, state: State
) -> None:
    with monitor(folder / "qmp.sock", {"query-status": {"status": status}}):
        assert qemu.state() is state


@pytest.mark.parametrize(
    ("status", "state"),
    [("inmigrate", State.SAVED), ("prelaunch", State.SAVED), ("paused", State.PAUSED), ("running", State.RUNNING)],
)
def test_a_machine_is_suspended_until_its_memory_is_loaded(
    qemu: Qemu, suspended: MachineFolder, running: object, status: str, state: State
) -> None:
    with monitor(suspended / "qmp.sock", {"query-status": {"status": status}}):
        assert qemu.state() is state


def test_the_state_without_a_process_or_a_monitor(qemu: Qemu, running: subprocess.Popen[bytes]) -> None:
    assert qemu.state() is State.ERROR
    running.kill()
    running.wait(timeout=60)
    assert qemu.state() is State.STOPPED


def test_stop_presses_the_button_and_minds_no_machine_that_is_off(qemu: Qemu, folder: MachineFolder) -> None:
    qemu.stop()
    with monitor(folder / "qmp.sock") as server:
        qemu.stop()
    assert server.commands == ["qmp_capabilities", "query-status", "system_powerdown"]


def test_stop_wakes_a_paused_guest_which_would_feel_no_button(qemu: Qemu, folder: MachineFolder) -> None:
    with monitor(folder / "qmp.sock", {"query-status": [{"return": {"status": "paused"}}]}) as server:
        qemu.stop()
    assert server.commands == ["qmp_capabilities", "query-status", "cont", "system_powerdown"]


def test_kill_lets_qemu_write_its_tables_and_ends_what_is_left(
    qemu: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes]
) -> None:
    with monitor(folder / "qmp.sock", {"quit": [{"return": {}}, {"event": "SHUTDOWN"}, HANG_UP]}) as server:
        qemu.kill()
    assert server.commands == ["qmp_capabilities", "quit"]
    assert running.wait(timeout=60) == -9
    assert not (folder / "qemu.pid").exists()
    qemu.kill()


def test_remove_ends_the_process_and_minds_none(qemu: Qemu, running: subprocess.Popen[bytes]) -> None:
    qemu.remove()
    assert running.wait(timeout=60) == -9
    qemu.remove()


# Suspending.

LAYOUT = {"base_mib": 512, "more_mib": 256, "reporting": False, "cpus": 2, "image": ""}


def layout_of_qemu(**answers: Any) -> dict[str, Any]:
    """The monitor's answers of a machine that is laid out so, and whose state is saved and loaded well."""
    of = {"requested-size": 256 << 20, "free-page-reporting": False}
    return {
        "query-cpus-fast": [{"return": [{}, {}]}],
        "query-memory-size-summary": {"base-memory": 512 << 20},
        "qom-get": lambda message: of[message["arguments"]["property"]],
        "qom-list": [{"return": [{"name": "memory", "type": "child<virtio-mem-pci>"}]}],
        "query-migrate": {"status": "completed"},
        "query-status": {"status": "paused"},
        "quit": [{"return": {}}, HANG_UP],
        **answers,
    }


def files_of(folder: MachineFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir() if not path.name.endswith((".sock", ".log"))}


def test_suspend_keeps_the_state_and_the_layout(
    qemu: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes]
) -> None:
    with monitor(folder / "qmp.sock", layout_of_qemu()) as server:
        qemu.suspend()
    commands = server.commands
    assert commands.index("stop") < commands.index("migrate") < commands.index("quit")
    assert "cont" not in commands
    assert running.wait(timeout=60) == -9
    assert qemu.state() is State.SAVED
    assert json.loads((folder / SUSPENDED_LAYOUT).read_text()) == LAYOUT
    assert files_of(folder) == {SUSPENDED, SUSPENDED_LAYOUT}


def goes_on(qemu: Qemu, folder: MachineFolder, asked: list[str], running: subprocess.Popen[bytes]) -> bool:
    return asked[-2:] == ["migrate_cancel", "cont"] and running.poll() is None and files_of(folder) == {"qemu.pid"}


def test_a_state_that_cant_be_saved_lets_the_machine_go_on(
    qemu: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes]
) -> None:
    failed = {"status": "failed", "error-desc": "no space left"}
    with (
        monitor(folder / "qmp.sock", layout_of_qemu(**{"query-migrate": failed})) as server,
        pytest.raises(DriverFailed, match="no space left"),
    ):
        qemu.suspend()
    assert goes_on(qemu, folder, server.commands, running)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left")])
def test_a_suspend_that_is_interrupted_lets_the_machine_go_on(
    qemu: Qemu,
    folder: MachineFolder,
    running: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def save(monitor: object, path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise error

    monkeypatch.setattr(migration, "save", save)
    with monitor(folder / "qmp.sock", layout_of_qemu()) as server, pytest.raises(type(error)):
        qemu.suspend()
    assert goes_on(qemu, folder, server.commands, running)


def test_a_layout_that_cant_be_written_costs_no_memory(
    qemu: Qemu, folder: MachineFolder, running: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, *_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files, "write", write)
    with monitor(folder / "qmp.sock", layout_of_qemu()) as server, pytest.raises(OSError, match="no space"):
        qemu.suspend()
    assert goes_on(qemu, folder, server.commands, running)


@pytest.fixture
def suspended(folder: MachineFolder) -> MachineFolder:
    (folder / SUSPENDED).write_text("state")
    (folder / SUSPENDED_LAYOUT).write_text(json.dumps(LAYOUT))
    return folder


@pytest.fixture
def woken(folder: MachineFolder, recorder: Recorder) -> Iterator[dict[str, Any]]:
    """What the monitor answers once QEMU was started; "server" is put there then."""
    answers = layout_of_qemu()
    with contextlib.ExitStack() as stack:

        def launched(_: list[str]) -> None:
            answers["server"] = stack.enter_context(monitor(folder / "qmp.sock", answers))
            answers["process"] = stack.enter_context(process(folder))
            answers["agent"] = stack.enter_context(agent(folder / "agent.sock", guest))

        recorder.launched = launched
        yield answers


def test_start_wakes_a_suspended_machine_as_it_was_laid_out(
    qemu: Qemu, suspended: MachineFolder, recorder: Recorder, woken: dict[str, Any], detached: list[list[str]]
) -> None:
    assert qemu.state() is State.SAVED
    qemu.start()
    (words,) = recorder.launches
    assert words[words.index("-incoming") + 1] == "defer"
    assert words[words.index("-smp") + 1] == "2"
    assert "memory-backend-ram,id=ram,size=512M" in words
    assert "virtio-balloon-pci,id=balloon,free-page-reporting=off" in words
    asked = woken["server"].asked
    assert [message["arguments"]["value"] for message in asked if message["execute"] == "qom-set"] == [256 << 20]
    commands = woken["server"].commands
    assert commands.index("qom-set") < commands.index("migrate-incoming") < commands.index("cont")
    assert woken["agent"].commands[-1] == "guest-set-time"
    assert files_of(suspended) == {"qemu.pid", "helper.lock"}
    assert len(detached) == 1


def test_a_state_that_cant_be_loaded_stays(
    qemu: Qemu, suspended: MachineFolder, woken: dict[str, Any], detached: list[list[str]]
) -> None:
    woken["query-migrate"] = {"status": "failed", "error-desc": "another device"}
    with pytest.raises(DriverFailed, match="another device"):
        qemu.start()
    assert woken["process"].wait(timeout=60) == -9
    assert files_of(suspended) == {SUSPENDED, SUSPENDED_LAYOUT}
    assert qemu.state() is State.SAVED
    assert detached == []


def test_a_qemu_that_doesnt_start_leaves_the_state(qemu: Qemu, suspended: MachineFolder, recorder: Recorder) -> None:
    recorder.error = "Cannot allocate memory"
    with pytest.raises(DriverFailed, match="Cannot allocate memory"):
        qemu.start()
    assert qemu.state() is State.SAVED


def test_kill_drops_what_was_suspended(qemu: Qemu, suspended: MachineFolder) -> None:
    qemu.kill()
    assert qemu.state() is State.STOPPED
    assert files_of(suspended) == set()


def test_a_guest_without_an_agent_wakes_too(qemu: Qemu) -> None:
    qemu.vm.set_clock()


def test_warnings_name_the_ports_that_arent_forwarded(qemu: Qemu, folder: MachineFolder) -> None:
    assert qemu.warnings() == []
    ports.note(folder, ["port 8080/tcp isn't forwarded: it rains"])
    assert qemu.warnings() == ["port 8080/tcp isn't forwarded: it rains"]


def test_whoever_asks_for_the_state_starts_a_helper_that_was_killed(
    qemu: Qemu, folder: MachineFolder, running: object, detached: list[list[str]]
) -> None:
    status = {"status": "paused"}
    with monitor(folder / "qmp.sock", {"query-status": lambda _: status}):
        qemu.state()
        assert detached == []
        status["status"] = "running"
        Qemu(replace(qemu.machine, address=None), folder, qemu.run).state()
        assert detached == [], "a template has no ports"
        assert qemu.state() is State.RUNNING
    assert detached == [[sys.executable, "-m", "machine.drivers.qemu", str(folder.path)]]


def test_the_diagnosis_is_the_state(qemu: Qemu) -> None:
    assert qemu.diagnosis() == "the hypervisor says: Stopped"


def test_other_names_of_processors(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ours in {"AMD64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64", "riscv64": "riscv64"}.items():
        monkeypatch.setattr(platform, "machine", lambda name=name: name)
        assert resources.architecture() == ours
    with contextlib.suppress(ToolMissing):
        assert vm.find_binary("riscv64") == "/usr/bin/qemu-system-riscv64"

import contextlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import QEMU, Recorder
from fake_qmp import HANG_UP, monitor
from machine.drivers.qemu import Qemu, acceleration, driver, ports

from machine import driver as contract
from machine.driver import State
from machine.errors import CheckFailed, DriverFailed, NoSuchImage, ToolMissing
from machine.paths import Home
from machine.spec import Address


def with_options(qemu: Qemu, **options: Any) -> Qemu:
    return Qemu(replace(qemu.machine, options=options), qemu.home, qemu.run)


def test_it_is_a_driver(qemu: Qemu) -> None:
    assert isinstance(qemu, contract.Driver)
    assert (qemu.name, qemu.loopback, qemu.address()) == ("qemu", True, Address("127.77.0.2"))


def test_check_tells_why_a_machine_is_emulated(qemu: Qemu, recorder: Recorder) -> None:
    assert qemu.check() == [acceleration.why_not("tcg")]
    assert with_options(qemu, accelerator="kvm").check() == []
    assert recorder.ran == []


def test_check_asks_which_accelerator_works(qemu: Qemu, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(acceleration, "choose", lambda *words: asked.append(words[:2]) or "kvm")
    assert with_options(qemu).check() == []
    assert asked == [(QEMU, store / "acceleration.json")]


def test_check_names_what_is_missing(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("qemu-system-x86_64", "qemu-img"):
        monkeypatch.setattr(driver, "which", lambda tool, missing=missing: None if tool == missing else f"/bin/{tool}")
        with pytest.raises(ToolMissing, match=f"{missing} was not found") as caught:
            qemu.check()
        assert "apt install qemu-system-x86" in caught.value.hint


def test_check_refuses_a_path_that_is_too_long_for_a_socket(qemu: Qemu, tmp_path: Path) -> None:
    longest = driver.SOCKET_PATH - len("/machines/dev/ports.sock")
    fits = Path("/" + "x" * (longest - 1)) / "machines" / "dev"
    assert Qemu(qemu.machine, Home(fits), qemu.run).check()
    with pytest.raises(CheckFailed, match="too long for a socket"):
        Qemu(qemu.machine, Home(Path(f"/x{fits}".replace("//", ""))), qemu.run).check()


def test_windows_is_told_of_another_driver(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.sys, "platform", "win32")
    with pytest.raises(CheckFailed) as caught:
        qemu.check()
    assert "virtualbox" in caught.value.hint


def test_create_makes_a_disk_once(qemu: Qemu, home: Home, recorder: Recorder) -> None:
    qemu.create()
    disk = home / "disk.qcow2"
    assert recorder.ran == [["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1024M"]]
    disk.touch()
    qemu.create()
    assert len(recorder.ran) == 1


def test_start_runs_qemu_and_its_helper(qemu: Qemu, home: Home, recorder: Recorder, detached: list[list[str]]) -> None:
    home.console.write_text("of the last boot")
    qemu.start()
    (command,) = recorder.ran
    assert command[0] == QEMU
    assert command[command.index("-append") + 1].startswith("quiet ")
    assert command[command.index("-accel") + 1].startswith("tcg,")
    assert command[command.index("-cpu") + 1] == "max"
    assert detached == [[sys.executable, "-m", "machine.drivers.qemu", str(home.folder)]]
    assert not home.console.exists()
    assert (home / "console.log.1").read_text() == "of the last boot"


def test_start_without_its_image(qemu: Qemu, detached: list[list[str]]) -> None:
    absent = Qemu(replace(qemu.machine, image="0" * 64), qemu.home, qemu.run)
    with pytest.raises(NoSuchImage, match="000000000000"):
        absent.start()
    assert detached == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "qemu: -netdev user,id=net: Could not set up host forwarding rule 'tcp:127.77.0.2:2375-:2375'",
            "port 2375 or 22 on 127.77.0.2 is taken by another program",
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
    qemu: Qemu, home: Home, recorder: Recorder, running: object, detached: list[list[str]]
) -> None:
    with monitor(home / "qmp.sock") as server:
        qemu.start()
    assert server.commands == ["qmp_capabilities", "cont"]
    assert (recorder.ran, detached) == ([], [])


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", State.RUNNING),
        ("paused", State.PAUSED),
        ("suspended", State.PAUSED),
        ("shutdown", State.STOPPING),
        ("prelaunch", State.STARTING),
        ("inmigrate", State.STARTING),
        ("guest-panicked", State.ERROR),
        ("io-error", State.ERROR),
    ],
)
def test_the_state_is_what_the_monitor_says(qemu: Qemu, home: Home, running: object, status: str, state: State) -> None:
    with monitor(home / "qmp.sock", {"query-status": {"status": status}}):
        assert qemu.state() is state


def test_the_state_without_a_process_or_a_monitor(qemu: Qemu, running: subprocess.Popen[bytes]) -> None:
    assert qemu.state() is State.ERROR
    running.kill()
    running.wait(timeout=10)
    assert qemu.state() is State.STOPPED


def test_stop_presses_the_button_and_minds_no_machine_that_is_off(qemu: Qemu, home: Home) -> None:
    qemu.stop()
    with monitor(home / "qmp.sock") as server:
        qemu.stop()
    assert server.commands == ["qmp_capabilities", "query-status", "system_powerdown"]


def test_stop_wakes_a_paused_guest_which_would_feel_no_button(qemu: Qemu, home: Home) -> None:
    with monitor(home / "qmp.sock", {"query-status": [{"return": {"status": "paused"}}]}) as server:
        qemu.stop()
    assert server.commands == ["qmp_capabilities", "query-status", "cont", "system_powerdown"]


def test_kill_lets_qemu_write_its_tables_and_ends_what_is_left(
    qemu: Qemu, home: Home, running: subprocess.Popen[bytes]
) -> None:
    with monitor(home / "qmp.sock", {"quit": [{"return": {}}, {"event": "SHUTDOWN"}, HANG_UP]}) as server:
        qemu.kill()
    assert server.commands == ["qmp_capabilities", "quit"]
    assert running.wait(timeout=10) == -9
    assert not (home / "qemu.pid").exists()
    qemu.kill()


def test_remove_ends_the_process_and_minds_none(qemu: Qemu, running: subprocess.Popen[bytes]) -> None:
    qemu.remove()
    assert running.wait(timeout=10) == -9
    qemu.remove()


def test_warnings_name_the_ports_that_are_taken(qemu: Qemu, home: Home) -> None:
    assert qemu.warnings() == []
    (home / ports.TAKEN).write_text('["8080/tcp"]')
    assert qemu.warnings() == ["port 8080/tcp is published, but taken on 127.77.0.2 by another program of this host"]


def test_the_diagnosis_is_the_state(qemu: Qemu) -> None:
    assert qemu.diagnosis() == "the hypervisor says: Stopped"


def test_other_names_of_processors(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ours in {"AMD64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64", "riscv64": "riscv64"}.items():
        monkeypatch.setattr(driver.platform, "machine", lambda name=name: name)
        assert driver._architecture() == ours
    with contextlib.suppress(ToolMissing):
        assert qemu._binary() == "/usr/bin/qemu-system-riscv64"

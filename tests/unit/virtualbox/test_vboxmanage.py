import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused, transcript
from machine.drivers.virtualbox import vboxmanage
from machine.drivers.virtualbox.vboxmanage import VBoxFailed, VBoxManage, find, without_warnings

from machine.driver import State
from machine.errors import ToolMissing, WaitTimeout
from machine.run import Completed


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_vboxmanage_is_found_on_path_first(tmp_path: Path) -> None:
    on_path = executable(tmp_path / "bin" / "VBoxManage")
    executable(tmp_path / "elsewhere" / "VBoxManage")
    environ = {"PATH": str(on_path.parent), "VBOX_INSTALL_PATH": str(tmp_path / "elsewhere")}
    assert find("linux", environ) == str(on_path)


@pytest.mark.parametrize("variable", ["VBOX_INSTALL_PATH", "VBOX_MSI_INSTALL_PATH"])
def test_vboxmanage_is_found_where_the_installer_says(tmp_path: Path, variable: str) -> None:
    there = executable(tmp_path / "Oracle VM" / "VBoxManage.exe")
    assert find("win32", {"PATH": "", variable: str(there.parent)}) == str(there)


@pytest.mark.parametrize("variable", ["ProgramFiles", "ProgramW6432"])
def test_vboxmanage_is_found_in_program_files(tmp_path: Path, variable: str) -> None:
    there = executable(tmp_path / "Program Files" / "Oracle" / "VirtualBox" / "VBoxManage.exe")
    assert find("win32", {"PATH": "", variable: str(tmp_path / "Program Files")}) == str(there)


def test_vboxmanage_is_found_in_the_app_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    app = "/Applications/VirtualBox.app/Contents/MacOS/VBoxManage"
    monkeypatch.setattr(Path, "is_file", lambda self: str(self) == app)
    assert find("darwin", {"PATH": ""}) == app
    assert find("linux", {"PATH": ""}) is None


def test_without_vboxmanage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vboxmanage, "find", lambda: None)
    with pytest.raises(ToolMissing, match="VBoxManage was not found") as caught:
        VBoxManage(Scripted(), tmp_path)("list", "vms")
    assert "6.1" in caught.value.hint


@pytest.mark.parametrize(
    ("recorded", "begin"),
    [("debian-wrapper-version", "7.2.22"), ("debian-wrapper-list-vms-2", '"w" {'), ("main-version", "7.2.22")],
)
def test_warnings_on_stdout_are_taken_off(recorded: str, begin: str) -> None:
    assert without_warnings(transcript(recorded).stdout).startswith(begin)


def test_warnings_and_nothing_else() -> None:
    assert without_warnings(transcript("debian-wrapper-showvminfo-unknown").stdout) == ""


def test_an_error_that_exits_with_0_is_one(call: VBoxManage, run: Scripted) -> None:
    done = transcript("storage-discardstate-off")
    assert done.code == 0
    run.answer("discardstate", done)
    with pytest.raises(VBoxFailed):
        call("discardstate", UUID)


@pytest.mark.parametrize("recorded", ["main-modifyvm-audio", "storage-createmedium-vdi", "running-controlvm-savestate"])
def test_warnings_and_progress_on_stderr_are_no_error(call: VBoxManage, run: Scripted, recorded: str) -> None:
    done = transcript(recorded)
    assert done.stderr
    run.answer("x", done)
    assert call("x") == done.stdout


def test_the_first_of_several_lines_is_the_message(call: VBoxManage, run: Scripted) -> None:
    run.answer("createvm", transcript("main-createvm-exists"))
    with pytest.raises(VBoxFailed) as caught:
        call("createvm")
    assert caught.value.message == "VirtualBox: Machine settings file '/srv/m1/dev/dev/dev.vbox' already exists"
    assert caught.value.code == "VBOX_E_FILE_ERROR"
    assert "Context:" in caught.value.details


def test_an_end_without_a_word(call: VBoxManage, run: Scripted) -> None:
    run.answer("x", Completed([], 139, "", ""))
    with pytest.raises(VBoxFailed, match="exit status 139"):
        call("x")


@pytest.mark.parametrize(
    "busy",
    [
        transcript("running-startvm-already"),
        refused("The object is not ready", "E_ACCESSDENIED"),
        refused("Failed to save machine state", "E_FAIL"),
        refused(f"Cannot unregister the machine '{UUID}' while it is locked"),
        refused("Failed to create the VirtualBox object!", "NS_ERROR_ABORT"),
    ],
)
def test_what_is_busy_is_asked_again(call: VBoxManage, run: Scripted, busy: Completed) -> None:
    run.answer("modifyvm", busy, busy, Completed([], 0, "done", ""))
    assert call("modifyvm", UUID) == "done"
    assert len(run.calls) == 3


def test_what_stays_busy_fails_in_the_end(call: VBoxManage, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(vboxmanage, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(vboxmanage, "PAUSE", call.patience / 3.5)
    run.answer("modifyvm", transcript("running-startvm-already"))
    with pytest.raises(VBoxFailed, match="already locked by a session"):
        call("modifyvm", UUID)
    assert len(run.calls) == 5


def test_what_is_wrong_isnt_tried_again(call: VBoxManage, run: Scripted) -> None:
    run.answer("controlvm", transcript("storage-controlvm-poweroff-off"))
    with pytest.raises(VBoxFailed, match="is not currently running"):
        call("controlvm", UUID, "poweroff")
    assert len(run.calls) == 1


def test_info(call: VBoxManage, run: Scripted) -> None:
    run.answer("showvminfo", info("running"))
    found = call.info(UUID)
    assert found is not None
    assert found.state is State.RUNNING


def test_info_of_a_machine_that_isnt_there(call: VBoxManage, run: Scripted) -> None:
    run.answer("showvminfo", transcript("main-showvminfo-unknown"))
    assert call.info(UUID) is None


def test_info_of_a_machine_whose_settings_are_gone(call: VBoxManage, run: Scripted) -> None:
    run.answer("showvminfo", refused("The object functionality is limited", "E_ACCESSDENIED"))
    found = call.info(UUID)
    assert found is not None
    assert (found.word, found.state) == ("inaccessible", State.ERROR)


def test_other_failures_of_info_are_told(call: VBoxManage, run: Scripted) -> None:
    run.answer("showvminfo", refused("Out of everything", "E_FAIL"))
    with pytest.raises(VBoxFailed, match="Out of everything"):
        call.info(UUID)


class Slow(Scripted):
    """Takes its time, and counts how many are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = self.most = 0

    def __call__(self, argv: object, **_: object) -> Completed:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        time.sleep(0.1)
        self.at_once -= 1
        return Completed([], 0, "", "")


def together(*jobs: Callable[[], object]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)


def test_one_at_a_time_per_store(run: Scripted, tmp_path: Path) -> None:
    slow = Slow()
    calls = [VBoxManage(slow, tmp_path) for _ in range(3)]
    together(*(lambda call=call: call("createvm") for call in calls))
    assert slow.most == 1


def test_stores_dont_wait_for_each_other(run: Scripted, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(argv: object, **_: object) -> Completed:
        both.wait()
        return Completed([], 0, "met", "")

    calls = [VBoxManage(meet, tmp_path / name) for name in "ab"]
    answers: list[str] = []
    together(*(lambda call=call: answers.append(call("createvm")) for call in calls))
    assert answers == ["met", "met"]


def test_reading_goes_ahead_beside_a_long_call(run: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vboxmanage, "READ_PATIENCE", 0.01)
    call = VBoxManage(run, tmp_path)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with VBoxManage(run, tmp_path).alone():
            entered.set()
            leave.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert entered.wait(120)
        call("list", "vms")
        monkeypatch.setattr(vboxmanage, "LONG", 0.01)
        with pytest.raises(WaitTimeout, match="another command to finish with VirtualBox"):
            call("createvm")
    finally:
        leave.set()
        holder.join(120)
    assert run.calls == [["list", "vms"]]


def test_several_calls_can_be_held_together(call: VBoxManage, run: Scripted) -> None:
    with call.alone():
        call("hostonlyif", "create")
    assert len(run.calls) == 1

from pathlib import Path

import pytest
from fake_vboxmanage import Scripted, refused, transcript
from machine.drivers.virtualbox import explain, host
from machine.drivers.virtualbox.vboxmanage import VBoxManage

from machine.errors import CheckFailed
from machine.run import Completed

CAPABLE = Completed([], 0, "Processor supports HW virtualization: yes\n", "")
RUNS = Completed([], 0, "        STATE              : 4  RUNNING \n        WIN32_EXIT_CODE    : 0  (0x0)\n", "")
STOPPED = Completed([], 0, "        ZUSTAND            : 1  BEENDET \n        WIN32_EXIT_CODE    : 4  (0x4)\n", "")
NEW = (7, 2, 22)


@pytest.fixture
def driver_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/dev/vboxdrv")


def test_the_version(call: VBoxManage, run: Scripted) -> None:
    run.answer("--version", transcript("debian-wrapper-version"))
    assert host.check_version(call) == NEW


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Completed([], 0, "6.0.24r139119\n", ""), "VirtualBox 6.0.24 is too old: 6.1 is needed"),
        (Completed([], 0, "hello\n", ""), "doesn't print its version"),
        (refused("Failed to load VBoxRT"), "VBoxManage doesn't work: VirtualBox: Failed to load VBoxRT"),
    ],
)
def test_a_version_that_wont_do(call: VBoxManage, run: Scripted, answer: Completed, message: str) -> None:
    run.answer("--version", answer)
    with pytest.raises(CheckFailed, match=message) as caught:
        host.check_version(call)
    assert caught.value.hint


@pytest.mark.usefixtures("driver_is_loaded")
def test_a_capable_host(call: VBoxManage, run: Scripted) -> None:
    run.answer("list hostinfo", CAPABLE)
    assert host.check(call, run, NEW, "linux") == []
    assert host.check(call, run, NEW, "darwin") == []


@pytest.mark.usefixtures("driver_is_loaded")
def test_no_hardware_virtualization(call: VBoxManage, run: Scripted) -> None:
    run.answer("list hostinfo", transcript("main-list-hostinfo"))
    with pytest.raises(CheckFailed, match="no hardware virtualization") as caught:
        host.check(call, run, NEW, "linux")
    assert "BIOS" in caught.value.hint
    assert "--virtualbox-no-vtx-check" in caught.value.hint


@pytest.mark.parametrize(
    ("platform", "version", "remedy"),
    [("linux", NEW, "modprobe vboxdrv"), ("darwin", (6, 1, 50), "Privacy & Security")],
)
def test_the_kernel_driver_isnt_loaded(
    call: VBoxManage,
    run: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    version: tuple[int, int, int],
    remedy: str,
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    run.answer("list hostinfo", CAPABLE)
    with pytest.raises(CheckFailed, match="kernel driver isn't loaded") as caught:
        host.check(call, run, version, platform)
    assert remedy in caught.value.hint


def test_macos_has_no_kernel_driver_since_7(call: VBoxManage, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    run.answer("list hostinfo", CAPABLE)
    assert host.check(call, run, NEW, "darwin") == []


def test_windows_with_its_own_hypervisor_is_slow(call: VBoxManage, run: Scripted) -> None:
    run.answer("sc query vboxsup", RUNS)
    run.answer("powershell", Completed([], 0, "present=True\r\nvbs=2\r\nservices=2\r\n", ""))
    run.answer("list hostinfo", transcript("main-list-hostinfo"))
    [note] = host.check(call, run, NEW, "win32")
    assert "(for memory integrity)" in note
    for remedy in ("bcdedit /set hypervisorlaunchtype off", "Core isolation", "inside WSL 2"):
        assert remedy in note


def test_windows_without_it(call: VBoxManage, run: Scripted) -> None:
    run.answer("sc query vboxsup", Completed([], 1060, "", ""))
    run.answer("sc query vboxdrv", RUNS)  # its name before 7.0
    run.answer("powershell", Completed([], 0, "present=False\r\n", ""))
    run.answer("list hostinfo", CAPABLE)
    assert host.check(call, run, NEW, "win32") == []


def test_the_service_of_windows_is_off(call: VBoxManage, run: Scripted) -> None:
    run.answer("sc query", STOPPED)
    with pytest.raises(CheckFailed, match="kernel driver") as caught:
        host.check(call, run, NEW, "win32")
    assert "sc start vboxsup" in caught.value.hint


@pytest.mark.parametrize(
    ("stderr", "message", "remedy"),
    [
        (transcript("running-startvm-driverless-no-fallback").stderr, "kernel driver", "modprobe"),
        (transcript("stock-hardened-startvm").stderr, "kernel driver", "modprobe"),
        (transcript("running-startvm-2-locked-medium").stderr, "in use by another", "list runningvms"),
        (transcript("running-startvm-hostonly-missing").stderr, "host-only adapter", "list hostonlyifs"),
        (transcript("net-start-hostonlyif-create").stderr, "network driver", "vboxnetadp"),
        ("error: VT-x is not available (VERR_VMX_NO_VMX)", "no hardware virtualization", "BIOS"),
        ("error: VT-x is disabled in the BIOS (VERR_VMX_MSR_ALL_VMX_DISABLED)", "switched off", "BIOS"),
        ("error: AMD-V is disabled in the BIOS (VERR_SVM_DISABLED)", "switched off", "BIOS"),
        ("VirtualBox can't enable the AMD-V extension (VERR_SVM_IN_USE)", "another hypervisor", "modprobe -r kvm"),
        ("Call to WHvSetupPartition failed (VERR_NEM_VM_CREATE_FAILED)", "Hyper-V", "hypervisorlaunchtype off"),
        ("Kernel driver not installed (rc=-1908)", "kernel driver", "vboxconfig"),
        (
            "VBoxManage: error: Snapshot 'a' of the machine 'dev' cannot be deleted, because it has 2 child snapshots",
            "that two others",
            "machine snapshot ls",
        ),
        ("IP configuration is outside the allowed range", "host-only", "networks.conf"),
    ],
)
def test_what_is_wrong_is_said_in_words(stderr: str, message: str, remedy: str) -> None:
    found, hint = explain.explain(stderr)
    assert message in found
    assert remedy in hint


def test_what_isnt_known_is_left_as_it_is() -> None:
    assert explain.explain(transcript("main-createvm-exists").stderr) == ("", "")

"""What PowerShell, systeminfo, the registry and VBox.log say of Windows' own hypervisor."""

from pathlib import Path

import pytest
from fake_vboxmanage import Scripted
from machine.drivers.virtualbox import hypervisor
from machine.drivers.virtualbox.hypervisor import Hypervisor

from machine.errors import ToolMissing
from machine.run import Completed

ENGLISH = (
    "Hyper-V Requirements:      A hypervisor has been detected. Features required for Hyper-V will not be displayed."
)
GERMAN = "Hyper-V-Anforderungen:     Es wurde ein Hypervisor erkannt. Features, die für Hyper-V erforderlich sind, …"
FRENCH = "Configuration requise pour Hyper-V : Un hyperviseur a été détecté."
NONE = "Hyper-V Requirements:      VM Monitor Mode Extensions: Yes\n                           Second Level …: Yes\n"
REGISTRY = """
HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\DeviceGuard
    EnableVirtualizationBasedSecurity    REG_DWORD    0x1

HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\DeviceGuard\\Scenarios\\HypervisorEnforcedCodeIntegrity
    Enabled    REG_DWORD    0x1
    WasEnabledBy    REG_DWORD    0x2

HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Control\\DeviceGuard\\Scenarios\\CredentialGuard
    Enabled    REG_DWORD    0x0
"""


def said(text: str) -> Completed:
    return Completed([], 0, text.replace("\n", "\r\n"), "")


@pytest.mark.parametrize(
    ("answer", "users"),
    [
        ("vbs=2\nservices=2,1\n", ("memory integrity", "Credential Guard")),
        ("vbs=2\nservices=0\n", ("virtualization-based security",)),
        ("vbs=0\nservices=0\nfeature=NetFx3\nfeature=VirtualMachinePlatform\n", ("WSL 2 (Virtual Machine Platform)",)),
        ("vbs=0\nservices=\nfeature=Microsoft-Hyper-V-Hypervisor\n", ("Hyper-V",)),
        ("", ()),
    ],
)
def test_what_started_it(run: Scripted, answer: str, users: tuple[str, ...]) -> None:
    run.answer("powershell", said(f"present=True\n{answer}"))
    assert hypervisor.find(run) == Hypervisor(users)


def test_what_powershell_doesnt_know_is_in_the_registry(run: Scripted) -> None:
    run.answer("powershell", said("present=True\nvbs=\nservices=\n"))
    run.answer("reg query", said(REGISTRY))
    assert hypervisor.find(run) == Hypervisor(("memory integrity",))


@pytest.mark.parametrize(
    ("text", "active"), [(ENGLISH, True), (GERMAN, True), (FRENCH, True), (NONE, False), ("", False)]
)
def test_where_powershell_isnt_allowed_systeminfo_is_asked(run: Scripted, text: str, active: bool) -> None:
    run.answer("powershell", Completed([], 1, "", "This program is blocked by group policy."))
    run.answer("systeminfo", said(f"Host Name: PC\n{text}\n"))
    assert hypervisor.find(run) == (Hypervisor() if active else None)


def test_nothing_is_asked_after_a_no(run: Scripted) -> None:
    run.answer("powershell", said("present=False\n"))
    assert hypervisor.find(run) is None
    assert [call[0] for call in run.calls] == ["powershell"]


def test_tools_that_arent_there() -> None:
    def run(argv: list[str], **_: object) -> Completed:
        raise ToolMissing(argv[0])

    assert hypervisor.find(run) is None


@pytest.mark.parametrize(
    ("line", "on_it"),
    [
        ("00:00:02.1 HM: HMR3Init: Attempting fall back to NEM: VT-x is not available", True),
        ("00:00:02.2 NEM: WHvCapabilityCodeHypervisorPresent is TRUE, so this might work...", True),
        ("00:00:02.1 HM: HMR3Init: VT-x w/ nested paging and unrestricted guest execution hw support", False),
    ],
)
def test_the_log_of_a_machine(tmp_path: Path, line: str, on_it: bool) -> None:
    log = tmp_path / "VBox.log"
    assert not hypervisor.runs_on_it(log)
    log.write_text(f"VirtualBox VM 7.2.22\n{line}\n", encoding="utf-8")
    assert hypervisor.runs_on_it(log) is on_it

"""Windows' own hypervisor: where it runs, VirtualBox runs on it, many times slower, or not at all.

Windows starts it for Hyper-V, WSL 2 and other optional features, and for virtualization-based security (VBS: memory
integrity, Credential Guard). `systeminfo` prints what Win32_ComputerSystem says, in the language of Windows; so
PowerShell is asked for that class, and systeminfo only where PowerShell may not be used. What started it is in
Win32_DeviceGuard (2: running; of the services 1 is Credential Guard, 2 memory integrity), in Win32_OptionalFeature, and
in the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from machine.errors import MachineError
from machine.run import Run

OFF = "as administrator: bcdedit /set hypervisorlaunchtype off, and start Windows again (WSL 2 then doesn't run)"
INTEGRITY_OFF = (
    "where memory integrity needs it, switch that off first: Windows Security, Device security, Core isolation"
)
WSL = "or use machine inside WSL 2, as on Linux: there its default driver, QEMU, has KVM"
REMEDIES = "; ".join((OFF, INTEGRITY_OFF, WSL))
TIMEOUT = 60.0
_ASK = (
    "$c = Get-CimInstance Win32_ComputerSystem; 'present=' + $c.HypervisorPresent; if ($c.HypervisorPresent) { "
    "$g = Get-CimInstance -Namespace root/Microsoft/Windows/DeviceGuard Win32_DeviceGuard; "
    "'vbs=' + $g.VirtualizationBasedSecurityStatus; 'services=' + ($g.SecurityServicesRunning -join ','); "
    "Get-CimInstance Win32_OptionalFeature -Filter 'InstallState=1' | ForEach-Object { 'feature=' + $_.Name } }"
)
# The names of Windows' optional features.
_FEATURES = {
    "Microsoft-Hyper-V-Hypervisor": "Hyper-V",
    "VirtualMachinePlatform": "WSL 2 (Virtual Machine Platform)",
    "HypervisorPlatform": "Windows Hypervisor Platform",
    "Containers-DisposableClientVM": "Windows Sandbox",
}
_SERVICES = {"1": "Credential Guard", "2": "memory integrity"}
_RUNNING = "2"
_GUARD = r"HKLM\SYSTEM\CurrentControlSet\Control\DeviceGuard"
_SCENARIOS = {"HypervisorEnforcedCodeIntegrity": "memory integrity", "CredentialGuard": "Credential Guard"}
# "Hyper-V Requirements:      A hypervisor has been detected. …", in English, German, French, Spanish, Japanese.
_DETECTED = re.compile(
    r"^.*Hyper-V.*:.*(?:hypervisor|hyperviseur|hipervisor|ハイパーバイザ)", re.MULTILINE | re.IGNORECASE
)
# As VirtualBox 6.1 to 7.2 write: "HM: HMR3Init: Attempting fall back to NEM: VT-x is not available".
_ON_IT = re.compile(r"HM: HMR3Init: Attempting fall back to NEM|NEM: WHvCapabilityCodeHypervisorPresent is TRUE")


@dataclass(frozen=True)
class Hypervisor:
    """Windows' own, at work. users: what it was started for, as far as that is known."""

    users: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        for_whom = f" (for {', '.join(self.users)})" if self.users else ""
        return (
            f"Windows' own hypervisor is active{for_whom}: VirtualBox runs on it, and machines are many times slower. "
            f"Remedies: {REMEDIES}"
        )


def find(run: Run) -> Hypervisor | None:
    """None where it isn't active, or nothing can be learnt of it."""
    told = _said(run, ["powershell", "-NoProfile", "-NonInteractive", "-Command", _ASK])
    values = [line.strip().partition("=")[::2] for line in told.splitlines()]
    if ("present", "True") in values:
        users = dict.fromkeys(_users(values)) or dict.fromkeys(_from_registry(run))
        return Hypervisor(tuple(users))
    if ("present", "False") in values or not _DETECTED.search(_said(run, ["systeminfo"])):
        return None
    return Hypervisor(tuple(_from_registry(run)))


def _users(values: list[tuple[str, str]]) -> Iterator[str]:
    secure = ("vbs", _RUNNING) in values
    for key, value in values:
        if key == "feature" and value in _FEATURES:
            yield _FEATURES[value]
        if key == "services" and secure:
            yield from (_SERVICES.get(number, "") or "virtualization-based security" for number in value.split(","))


def _from_registry(run: Run) -> Iterator[str]:
    """The kinds of virtualization-based security that are switched on: which needn't mean that they run."""
    key = ""
    for line in _said(run, ["reg", "query", _GUARD, "/s"]).splitlines():
        if line.startswith("HKEY"):
            key = line.strip().rpartition("\\")[2]
        elif key in _SCENARIOS and re.search(r"\bEnabled\s+REG_DWORD\s+0x1\b", line):
            yield _SCENARIOS[key]


def runs_on_it(log: Path) -> bool:
    """Whether VBox.log says that the virtual machine runs on Windows' hypervisor, by its NEM."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return any(_ON_IT.search(line) for line in file)
    except OSError:
        return False


def _said(run: Run, argv: list[str]) -> str:
    try:
        return run(argv, timeout=TIMEOUT, check=False).stdout
    except MachineError:
        return ""

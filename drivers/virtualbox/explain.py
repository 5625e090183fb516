"""VirtualBox's error codes in words, with the remedy. Sources: VirtualBox's err.h, and messages seen on a real one."""

from __future__ import annotations

import re

from . import hypervisor

_FIRMWARE = "switch virtualization (Intel VT-x, AMD SVM) on in the BIOS or UEFI set-up of this computer"
NO_DRIVER = "VirtualBox's kernel driver isn't loaded"

_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"VERR_VMX_NO_VMX|VERR_SVM_NO_SVM",
        "this computer's processor, or what it runs in, offers no hardware virtualization (VT-x, AMD-V)",
        f"{_FIRMWARE}; inside a virtual machine, switch nested virtualization on",
    ),
    (
        r"VERR_VMX_MSR_\w*(?:DISABLED|LOCKED)|VERR_SVM_DISABLED",
        "hardware virtualization (VT-x, AMD-V) is switched off",
        _FIRMWARE,
    ),
    (
        r"VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE",
        "another hypervisor is using this computer's virtualization",
        "stop its virtual machines; on Linux also: sudo modprobe -r kvm_intel kvm_amd",
    ),
    (
        r"VERR_NEM_\w+|WHvCapability",
        "Windows' own hypervisor (Hyper-V) has the processor, and VirtualBox can't use it",
        hypervisor.OFF,
    ),
    (
        r"VERR_VM_DRIVER_\w+|VERR_SUPDRV_\w+|Kernel driver not installed|rc=-1908|Error -1908",
        NO_DRIVER,
        "on Linux: sudo modprobe vboxdrv, or sudo /sbin/vboxconfig; elsewhere install VirtualBox again",
    ),
    (
        r"VERR_SUP_DRIVERLESS|Driverless mode",
        "VirtualBox runs without its kernel driver, and this needs it",
        "on Linux: sudo modprobe vboxdrv, or sudo /sbin/vboxconfig",
    ),
    (
        r"terminated unexpectedly during startup",
        "VirtualBox's process ended as it started: as a rule its kernel driver isn't loaded",
        "on Linux: sudo modprobe vboxdrv, or sudo /sbin/vboxconfig; elsewhere install VirtualBox again",
    ),
    (
        r"Locking of attached media failed",
        "a disk of the machine is in use by another running virtual machine",
        "find it: VBoxManage list runningvms",
    ),
    (
        r"Nonexistent host networking interface|Interface \('vboxnet\d+'\) is not a Host-Only|hostonly adapter",
        "the machine's host-only adapter no longer exists",
        "VBoxManage list hostonlyifs",
    ),
    (
        r"Snapshot .* cannot be deleted, because it (?:is the current snapshot and )?has",
        "VirtualBox can't remove a snapshot that two others, or one and the machine's present state, are based on",
        "remove the later ones first: machine snapshot ls",
    ),
    (
        r"VERR_NO_MEMORY|VERR_EM_NO_MEMORY|Unable to allocate",
        "VirtualBox can't allocate memory for the machine",
        "close other programs, or make a smaller machine: --memory 1G",
    ),
    (
        r"/dev/vboxnetctl",
        "VirtualBox's network driver isn't loaded",
        "on Linux: sudo modprobe vboxnetadp, or sudo /sbin/vboxconfig",
    ),
    (
        r"outside .*(?:allowed|permitted)|not within the allowed ranges",
        "VirtualBox doesn't allow these addresses on host-only adapters",
        'use addresses of 192.168.56.0/21, or allow others: echo "* 192.168.0.0/16" | sudo tee /etc/vbox/networks.conf',
    ),
)


def explain(stderr: str) -> tuple[str, str]:
    """Message and hint for the first known cause, empty for an unknown one."""
    for pattern, message, hint in _KNOWN:
        if re.search(pattern, stderr):
            return message, hint
    return "", ""

"""The disk of a machine that boots: empty, or laid over the cloud image that it boots from."""

from __future__ import annotations

from machine.paths import Image

from .argv import DISK
from .vm import Vm, has_boot_loader


def make(vm: Vm) -> None:
    """Make the disk anew. Raises DriverFailed."""
    (vm.folder / DISK).unlink(missing_ok=True)
    if has_boot_loader(Image(vm.machine.image)):
        from . import cloud_image  # 4 ms, and machineos has no need of it

        cloud_image.lay_disk(vm)
    else:
        vm.run(["qemu-img", "create", "-q", "-f", "qcow2", vm.folder / DISK, f"{vm.machine.disk_mib}M"])

"""The disk of a machine that boots a publisher's cloud image: the image stays as it is, and an overlay is written to.

The image is linked into its folder, so that the machine keeps it when it goes from the cache, and moves with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from machine.errors import DriverFailed
from machine.images import disks
from machine.paths import Image

from .argv import BASE_IMAGE, DISK
from .vm import Vm


def lay_disk(vm: Vm) -> None:
    """Make the disk, as large as was asked for. Raises DriverFailed when the image is larger."""
    image, base = Image(vm.machine.image), vm.folder / BASE_IMAGE
    disk = disks.check_whole(image.file)
    if disk.size > vm.machine.disk_mib << 20:
        needed = -(-disk.size >> 20)
        raise DriverFailed(f"the image needs a disk of {needed} MiB", hint=f"use a larger disk: --disk {needed}")
    base.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(image.file, base)
    if not base.exists():
        shutil.copyfile(image.file, base)
    backing = ["-b", BASE_IMAGE, "-F", disk.format]
    vm.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, vm.folder / DISK, f"{vm.machine.disk_mib}M"])

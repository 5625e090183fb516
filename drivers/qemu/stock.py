"""The disk of a machine that boots a publisher's cloud image: the image stays as it is, and an overlay is written to.

The image is linked into the home, so that the machine keeps it when it goes from the cache, and moves with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING

from machine.errors import DriverFailed
from machine.paths import Image

from .argv import DISK

if TYPE_CHECKING:
    from .driver import Qemu

BASE = "base.img"


def boots(image: Image) -> bool:
    """Whether it boots by its own boot loader: our own image brings its kernel."""
    return image.file.exists() and not image.kernel.exists()


def lay_disk(qemu: Qemu) -> None:
    """Make the disk, as large as was asked for. Raises DriverFailed when the image is larger."""
    image, base = Image(qemu.machine.image), qemu.home / BASE
    about = json.loads(qemu.run(["qemu-img", "info", "--output=json", image.file]).stdout)
    if about["virtual-size"] > qemu.machine.disk_mib << 20:
        needed = -(-about["virtual-size"] >> 20)
        raise DriverFailed(f"the image needs a disk of {needed} MiB", hint=f"ask for more: --disk {needed}")
    if "backing-filename" in about:
        raise DriverFailed("the image is only a part of one: it names another file", hint="qemu-img convert")
    base.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(image.file, base)
    if not base.exists():
        shutil.copyfile(image.file, base)
    backing = ["-b", BASE, "-F", about["format"]]
    qemu.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, qemu.home / DISK, f"{qemu.machine.disk_mib}M"])

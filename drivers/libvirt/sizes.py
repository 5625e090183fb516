"""A larger disk for a machine that is there, also while it runs."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from .connection import explained
from .volumes import Pool

if TYPE_CHECKING:
    import libvirt

# The target of the data disk in templates/libvirt/domain.xml.j2.
DATA = "vdb"
GROW = {"execute": "guest-exec", "arguments": {"path": "/usr/sbin/machineos-grow"}}
AGENT_TIMEOUT = 5


def grow_disk(domain: libvirt.virDomain, pool: Pool, name: str, size: int) -> None:
    """Make the disk size bytes large; a running guest's file system grows as well, another's when it starts.

    name: the volume's.
    """
    import libvirt

    with explained("the machine's disk can't be made larger"):
        if not domain.isActive():
            if (volume := pool.volume(name)) is not None:
                volume.resize(size)
            return
        domain.blockResize(DATA, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    import libvirt_qemu

    with contextlib.suppress(libvirt.libvirtError):  # no agent: it grows at the next start
        libvirt_qemu.qemuAgentCommand(domain, json.dumps(GROW), AGENT_TIMEOUT, 0)

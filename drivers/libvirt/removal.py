"""Taking away everything that a machine has in libvirt, whatever is left of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from machine.errors import CheckFailed

from . import domain
from .connection import explained

if TYPE_CHECKING:
    import libvirt

    from .driver import Libvirt


def remove(driver: Libvirt) -> None:
    """Succeeds when there is nothing. A machine whose machine.json can't be read is found by its domain's mark."""
    if driver.machine.uuid:
        _remove(driver, driver.find(), driver.machine.uuid, driver.machine.mac)
        return
    with contextlib.suppress(CheckFailed):  # where there is no libvirtd it has made nothing
        for there in list(domain.ours(driver.connection, driver.home)):
            _remove(driver, there, there.UUIDString(), domain.mac(there))


def _remove(driver: Libvirt, there: libvirt.virDomain | None, uuid: str, mac: str) -> None:
    if there is not None:
        domain.refuse_copy(there, driver.machine, driver.home)
        _undefine(there)
    _remove_volumes(driver, uuid)
    if not driver.connection.uri.is_session:
        driver.network.release(mac)


def _undefine(there: libvirt.virDomain) -> None:
    import libvirt

    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    with explained(f"the domain {there.name()} can't be removed"):
        if there.isActive():
            there.destroy()
        there.undefineFlags(flags)


def _remove_volumes(driver: Libvirt, uuid: str) -> None:
    if (pool := driver.pool.active()) is None:
        return
    with explained(f"the storage pool {driver.pool.name} doesn't tell of its volumes"):
        names = [volume.name() for volume in pool.listAllVolumes()]
    driver.pool.delete(*(name for name in names if name.startswith(f"machine-{uuid}-")))

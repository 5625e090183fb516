"""Taking away everything that a machine has in libvirt, whatever is left of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from machine.errors import CheckFailed

from . import domains
from .connection import explained
from .place import Place

if TYPE_CHECKING:
    import libvirt


def remove(place: Place) -> None:
    """Succeeds when there is nothing. A machine whose machine.json can't be read is found by its domain's mark."""
    if place.machine.uuid:
        _remove(place, place.find(), place.machine.uuid, place.machine.mac)
        return
    with contextlib.suppress(CheckFailed):  # where there is no libvirtd it has made nothing
        for domain in list(domains.ours(place.connection, place.folder)):
            _remove(place, domain, domain.UUIDString(), domains.mac(domain))


def _remove(place: Place, domain: libvirt.virDomain | None, uuid: str, mac: str) -> None:
    if domain is not None:
        domains.refuse_copy(domain, place.machine, place.folder)
        _undefine(domain)
    _remove_volumes(place, uuid)
    if not place.uri.is_session:
        place.network.release(mac)


def _undefine(domain: libvirt.virDomain) -> None:
    import libvirt

    flags = (
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    with explained(f"the domain {domain.name()} can't be removed"):
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(flags)


def _remove_volumes(place: Place, uuid: str) -> None:
    if (pool := place.pool.active()) is None:
        return
    with explained(f"can't look up the volumes of the storage pool {place.pool.name}"):
        names = [volume.name() for volume in pool.listAllVolumes()]
    place.pool.delete(*(name for name in names if name.startswith(f"machine-{uuid}-")))

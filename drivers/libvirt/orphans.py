"""What libvirt still has of machines that the store doesn't know any more: domains with its mark, and lone volumes.

A libvirtd is asked when a machine of the store is made with it, when it is the system's and listens, and a session's
when one of its definitions, which lie in files of the user's, carries our mark: no libvirtd is started, and no password
asked for another host, only to learn that there is nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from machine import paths
from machine.driver import Machine, Orphan
from machine.errors import MachineError
from machine.paths import MachineFolder
from machine.run import Run

from . import domains, removal
from .connection import Connection, Uri, explained
from .options import Options
from .place import DRIVER, Place

if TYPE_CHECKING:
    import libvirt

SYSTEM, SESSION = "qemu:///system", "qemu:///session"
# Of the one daemon, and of the driver's own in libvirt's newer division.
SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
_VOLUME = re.compile(r"machine-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?:disk\.qcow2|seed\.iso|console\.log)")


def find(store: Path, known: list[Machine], run: Run) -> list[Orphan]:
    orphans: list[Orphan] = []
    for uri in _uris(known):
        # One that doesn't answer is told with the machines that need it.
        with contextlib.suppress(MachineError):
            orphans += _on(Connection(Uri(uri)), store, {machine.uuid for machine in known}, run)
    return orphans


def _uris(known: list[Machine]) -> list[str]:
    used = [str(one.options.get("uri") or Options.uri) for one in known if one.driver == DRIVER]
    if any(os.access(socket, os.W_OK) for socket in SOCKETS):
        used.append(SYSTEM)
    if _session_has_ours():
        used.append(SESSION)
    return list(dict.fromkeys(used))


def _session_has_ours() -> bool:
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or paths.user_home() / ".config") / "libvirt" / "qemu"
    with contextlib.suppress(OSError):
        return any(
            domains.NAMESPACE in path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.xml")
        )
    return False


def _on(connection: Connection, store: Path, known: set[str], run: Run) -> Iterator[Orphan]:
    with explained(f"can't look up the domains on {connection.uri}"):
        defined = {domain.UUIDString() for domain in connection.raw.listAllDomains()}
    volumes = _volumes(connection)
    for name, domain in domains.of_store(connection, store):
        if (uuid := domain.UUIDString()) not in known:
            pool = volumes[uuid][0] if uuid in volumes else ""
            yield _orphan(connection, name, domain, pool, MachineFolder(store / "machines" / name), run)
    for uuid, (pool, names) in volumes.items():
        if uuid not in known and uuid not in defined:
            # Their names don't say of which store they are: another one may just be making the domain for them.
            lines = " && ".join(f"virsh -c {connection.uri} vol-delete --pool {pool} {name}" for name in sorted(names))
            what = f"the volumes {', '.join(sorted(names))} in the storage pool {pool}, without a domain"
            yield Orphan("", uuid, what, hint=f"if no other store has that machine: {lines}")


def _orphan(
    connection: Connection, name: str, domain: libvirt.virDomain, pool: str, folder: MachineFolder, run: Run
) -> Orphan:
    uuid, title = domain.UUIDString(), domain.name()
    options = {"uri": str(connection.uri), "network": domains.network(domain), "pool": pool}
    machine = Machine(
        name, DRIVER, uuid, domains.mac(domain), image="", memory_mib=0, cpus=0, disk_mib=0, options={**options}
    )
    place = Place(machine, folder, run, connection)
    return Orphan(name, uuid, f"the domain {title} on {place.uri}", partial(removal.remove, place))


def _volumes(connection: Connection) -> dict[str, tuple[str, list[str]]]:
    """The machines' own volumes in the pools that are active: UUID -> pool and names."""
    volumes: dict[str, tuple[str, list[str]]] = {}
    with explained(f"can't look up the storage pools on {connection.uri}"):
        for pool in connection.raw.listAllStoragePools():
            for volume in pool.listAllVolumes() if pool.isActive() else ():
                if match := _VOLUME.fullmatch(volume.name()):
                    volumes.setdefault(match[1], (pool.name(), []))[1].append(volume.name())
    return volumes

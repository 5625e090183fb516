"""Internal snapshots: memory, when the machine runs, and the disk's state lie in the disk's qcow2 file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from machine.driver import Snapshot
from machine.errors import DriverFailed
from machine.render import render

from .connection import explained, find
from .hypervisor import drop_state

if TYPE_CHECKING:
    import libvirt


def take(domain: libvirt.virDomain, name: str) -> None:
    if _find(domain, name) is not None:
        raise DriverFailed(f'the snapshot "{name}" already exists', hint="choose another name, or remove it")
    with explained(f'the snapshot "{name}" can\'t be made'):
        domain.snapshotCreateXML(render("libvirt/snapshot.xml.j2", name=name))


def list_all(domain: libvirt.virDomain) -> list[Snapshot]:
    import libvirt

    with explained("can't look up the machine's snapshots"):
        # Parents first: their times have whole seconds only.
        listed = domain.listAllSnapshots(libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL)
        snapshots = [_described(snapshot.getXMLDesc()) for snapshot in listed]
    return sorted(snapshots, key=lambda snapshot: snapshot.created)


def restore(domain: libvirt.virDomain, name: str) -> None:
    import libvirt

    snapshot = _existing(domain, name)
    with explained(f'the snapshot "{name}" can\'t be restored'):
        # A memory that was suspended belongs to another state of the disk.
        drop_state(domain)
        domain.revertToSnapshot(snapshot, libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE)


def forget(domain: libvirt.virDomain, name: str) -> None:
    snapshot = _existing(domain, name)
    with explained(f'the snapshot "{name}" can\'t be removed'):
        snapshot.delete()


def _existing(domain: libvirt.virDomain, name: str) -> libvirt.virDomainSnapshot:
    if (snapshot := _find(domain, name)) is None:
        raise DriverFailed(f'there is no snapshot "{name}"', hint="machine snapshot ls")
    return snapshot


def _find(domain: libvirt.virDomain, name: str) -> libvirt.virDomainSnapshot | None:
    what = "can't look up the machine's snapshots"
    return find(what, lambda: domain.snapshotLookupByName(name), "NO_DOMAIN_SNAPSHOT")


def _described(xml: str) -> Snapshot:
    tree = ElementTree.fromstring(xml)
    created = datetime.fromtimestamp(int(tree.findtext("creationTime", "0")), UTC).isoformat(timespec="seconds")
    return Snapshot(tree.findtext("name", ""), created, tree.findtext("state") == "running")

"""The domain's XML, as a pure function of what was asked for; and finding our domains again by their metadata."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from machine import copies
from machine.driver import Machine
from machine.paths import MachineFolder, same
from machine.render import render
from machine.spec import DOCKER_PORT

from .connection import Connection, explained, is_error

if TYPE_CHECKING:
    import libvirt

NAMESPACE = "urn:machine-vm:libvirt:1"
# The translation cache of TCG counts as the machine's memory: without a limit a 1 GiB guest stood at 1.6 GiB.
TCG_CACHE_MIB = 256
_BOARDS = {"x86_64": "q35", "aarch64": "virt"}


@dataclass(frozen=True)
class Parts:
    """What the domain is put together from: paths on the hypervisor's host.

    network: the name of libvirt's; "" for a network of the machine's own, which user_network makes: "passt", or
    "slirp" for the one in QEMU.
    """

    name: str
    type: str
    architecture: str
    emulator: str
    kernel: str
    initrd: str
    command_line: str
    image: str
    disk: str
    seed: str
    console: str
    network: str
    user_network: str


@dataclass(frozen=True)
class Mark:
    """What a domain's metadata says of its machine: its name, and the store and the host that it was made from."""

    name: str
    store: Path
    host: str

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()


def describe(machine: Machine, folder: MachineFolder, parts: Parts) -> str:
    """The XML to define."""
    return render(
        "libvirt/domain.xml.j2",
        machine=machine,
        namespace=NAMESPACE,
        store=os.path.realpath(folder.store),
        host=socket.gethostname(),
        board=board(parts.architecture),
        tcg_cache_mib=TCG_CACHE_MIB,
        docker_port=DOCKER_PORT,
        **vars(parts),
    )


def board(architecture: str) -> str:
    return _BOARDS.get(architecture, "virt")


def ours(connection: Connection, folder: MachineFolder) -> Iterator[libvirt.virDomain]:
    """The domains that carry this machine's name and store; for when its machine.json can't be read."""
    return (domain for name, domain in of_store(connection, folder.store) if name == folder.name)


def of_store(connection: Connection, store: Path) -> Iterator[tuple[str, libvirt.virDomain]]:
    """The domains that carry the mark of this store, on this host, each with its machine's name."""
    with explained(f"can't look up the domains on {connection.uri}"):
        for domain in connection.raw.listAllDomains():
            mark = _mark(domain)
            if mark and mark.is_here and same(mark.store, store) and _has_own_disk(domain):
                yield mark.name, domain


def refuse_copy(domain: libvirt.virDomain, machine: Machine, folder: MachineFolder) -> None:
    """Raise MachineError when the domain was made from another folder of the machine, of which folder is a copy."""
    mark = _mark(domain)
    if mark and mark.is_here:
        copies.refuse(machine, folder, mark.store / "machines" / mark.name)


def _has_own_disk(domain: libvirt.virDomain) -> bool:
    """virt-clone copies the mark, and makes another disk for the clone: that is the user's own."""
    return f"machine-{domain.UUIDString()}-disk.qcow2" in domain.XMLDesc()


def _mark(domain: libvirt.virDomain) -> Mark | None:
    import libvirt

    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if is_error(error, "NO_DOMAIN_METADATA", "NO_DOMAIN"):
            return None
        raise
    # libvirt may leave the name space out of what it returns.
    texts = {element.tag.rpartition("}")[2]: element.text or "" for element in ElementTree.fromstring(text)}
    return Mark(texts.get("name", ""), Path(texts.get("store", "")), texts.get("host", ""))


def network(domain: libvirt.virDomain) -> str:
    """The name of the network that a domain's first interface is on, "" when it is on none of libvirt's."""
    with explained(f"can't read the definition of the domain {domain.name()} from libvirt"):
        source = ElementTree.fromstring(domain.XMLDesc()).find("devices/interface/source")
    return source.get("network", "") if source is not None else ""


def mac(domain: libvirt.virDomain) -> str:
    """The MAC of a domain's first interface, "" when it has none."""
    with explained(f"can't read the definition of the domain {domain.name()} from libvirt"):
        element = ElementTree.fromstring(domain.XMLDesc()).find("devices/interface/mac")
    return element.attrib["address"] if element is not None else ""

"""A NAT network, and the address that a machine keeps on it: a DHCP reservation for its MAC."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from machine.errors import DriverFailed
from machine.render import render

from .connection import Connection, explained, find

if TYPE_CHECKING:
    import libvirt

# MachineFolder routers and the usual VPNs rarely have these.
CANDIDATES = [f"192.168.{third}.0/24" for third in range(177, 255)] + [f"172.31.{third}.0/24" for third in range(256)]
# A VPN's route for half of the internet is none that a machine would be hidden behind.
WIDEST = 8


class Network:
    """The network of that name; `ready` makes and starts it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name

    def find(self) -> libvirt.virNetwork | None:
        what = f"can't look up the networks on {self.connection.uri}"
        return find(what, lambda: self.connection.raw.networkLookupByName(self.name), "NO_NETWORK")

    def ready(self) -> libvirt.virNetwork:
        """The network, made when there is none and started when it wasn't."""
        network = self.find()
        if network is None:
            return self._make()
        with explained(f"the network {self.name} can't be started", hint=f"virsh net-start {self.name}"):
            if not network.isActive():
                network.create()
        return network

    def reserve(self, mac: str) -> str:
        """The address that the network keeps for this MAC; the same each time."""
        import libvirt

        network = self.ready()
        if address := reserved(_xml(network)).get(mac):
            return address
        for address in free(_xml(network), leased(network)):
            host = render("libvirt/host.xml.j2", mac=mac, address=address)
            with explained(f"the network {self.name} refuses a DHCP reservation"):
                try:
                    _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, host)
                except libvirt.libvirtError as error:
                    if "existing dhcp host entry" in str(error):
                        continue  # somebody else was quicker
                    raise
                return address
        raise DriverFailed(
            f"the network {self.name} has no address left, or gives none by DHCP",
            hint="choose another: --libvirt-network NAME",
        )

    def release(self, mac: str) -> None:
        """Give up the reservation; nothing when there is none."""
        import libvirt

        network = self.find()
        if network is None or mac not in (hosts := reserved(_xml(network))):
            return
        host = render("libvirt/host.xml.j2", mac=mac, address=hosts[mac])
        with explained(f"the reservation of {hosts[mac]} can't be removed from the network {self.name}"):
            _update(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, host)

    def lease(self, mac: str) -> str:
        """The address that the machine has taken, "" when it has none."""
        network = self.find()
        with explained(f"can't read the leases of the network {self.name}"):
            if network is None or not network.isActive():
                return ""
            leases = sorted(network.DHCPLeases(mac), key=lambda lease: float(lease["expirytime"]))
            return str(leases[-1]["ipaddr"]) if leases else ""

    def _make(self) -> libvirt.virNetwork:
        import libvirt

        taken = [] if self.connection.uri.is_remote else routes(Path("/proc/net/route").read_text(encoding="utf-8"))
        taken += self._subnets()
        for subnet in (IPv4Network(text) for text in CANDIDATES):
            if any(subnet.overlaps(other) for other in taken):
                continue
            with explained(
                f"the network {self.name} can't be made", hint="use an existing one: --libvirt-network NAME"
            ):
                network = self.connection.raw.networkDefineXML(_described(self.name, subnet))
                try:
                    network.create()
                    network.setAutostart(1)
                except BaseException as error:
                    network.undefine()
                    # Of another host's routes we learn in this way.
                    if isinstance(error, libvirt.libvirtError) and "already in use by interface" in str(error):
                        continue
                    raise
                return network
        raise DriverFailed(
            "every private subnet is in use here", hint="use an existing network: --libvirt-network NAME"
        )

    def _subnets(self) -> list[IPv4Network]:
        with explained(f"can't look up the networks on {self.connection.uri}"):
            return [net for network in self.connection.raw.listAllNetworks() if (net := subnet_of(_xml(network)))]


def routes(table: str) -> list[IPv4Network]:
    """The networks of /proc/net/route, whose numbers are hexadecimal and begin with the last byte."""
    networks = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, mask = (IPv4Address(int.from_bytes(bytes.fromhex(fields[at]), "little")) for at in (1, 7))
        network = IPv4Network(f"{address}/{mask}", strict=False)
        if network.prefixlen >= WIDEST:
            networks.append(network)
    return networks


def subnet_of(xml: str) -> IPv4Network | None:
    """The first IPv4 subnet of a network's XML."""
    for ip in ElementTree.fromstring(xml).findall("ip"):
        if ip.get("family", "ipv4") == "ipv4" and ip.get("address"):
            return ipaddress.IPv4Network(f"{ip.get('address')}/{ip.get('netmask') or ip.get('prefix')}", strict=False)
    return None


def reserved(xml: str) -> dict[str, str]:
    """MAC -> address of the DHCP reservations."""
    hosts = ElementTree.fromstring(xml).findall("ip/dhcp/host")
    return {host.attrib["mac"].lower(): host.attrib["ip"] for host in hosts if host.get("mac") and host.get("ip")}


def free(xml: str, leases: Iterable[str]) -> Iterator[str]:
    """The addresses of the DHCP ranges that are neither reserved nor leased."""
    taken = {*reserved(xml).values(), *leases}
    for element in ElementTree.fromstring(xml).findall("ip/dhcp/range"):
        first, last = IPv4Address(element.attrib["start"]), IPv4Address(element.attrib["end"])
        for number in range(int(first), int(last) + 1):
            if (address := str(IPv4Address(number))) not in taken:
                yield address


def leased(network: libvirt.virNetwork) -> list[str]:
    with explained("can't read the network's leases"):
        return [str(lease["ipaddr"]) for lease in network.DHCPLeases()]


def _described(name: str, subnet: IPv4Network) -> str:
    hosts = list(subnet.hosts())
    return render(
        "libvirt/network.xml.j2", name=name, gateway=hosts[0], netmask=subnet.netmask, first=hosts[1], last=hosts[-1]
    )


def _xml(network: libvirt.virNetwork) -> str:
    with explained("can't read the network's definition"):
        return str(network.XMLDesc())


def _update(network: libvirt.virNetwork, command: int, host: str) -> None:
    import libvirt

    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if network.isActive():
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    network.update(command, libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, host, flags)

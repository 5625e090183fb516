"""The second card, where one is asked for: on a host-only network, or bridged.

The first card is the NAT whatever else there is: Docker and SSH are reached through it on the machine's loopback
address, which no VPN and no other adapter can take away. A host-only card has a fixed address, written into the seed:
no DHCP server is needed, and none can disagree.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from machine import files
from machine.driver import Machine
from machine.errors import CheckFailed, DriverFailed, MachineError, Usage
from machine.paths import MachineFolder

from . import parse, settings
from .options import HOSTONLY_CIDR, Options
from .vboxmanage import VBoxManage

if TYPE_CHECKING:
    from machine.guest.seed import Interface

NOTE = "hostonly.json"
# The machines' addresses, counted from the network's: below those that VirtualBox's and docker-machine's DHCP servers
# give on a host-only adapter (.100 and up), and above those on a macOS network (.1 and up).
_MACHINES = {"hostonlyif": range(30, 100), "hostonlynet": range(200, 250)}
_MADE = re.compile(r"Interface '(.+)' was successfully created")
# What VirtualBox allows since 6.1.28, on other systems than Windows, unless networks.conf says otherwise (its manual,
# "Host-Only Networking").
_ALLOWED = IPv4Network("192.168.56.0/21")
_CONF = Path("/etc/vbox/networks.conf")


@dataclass(frozen=True)
class HostOnly:
    """kind: "hostonlyif" (an adapter) or "hostonlynet" (macOS). address: the machine's, 192.168.59.30/24.

    made: we made the adapter, and remove it with the last machine that uses it.
    """

    kind: str
    name: str
    address: str
    made: bool

    def words(self, machine: Machine, nictype: str) -> list[str]:
        card = ["--nic2", "hostonlynet", "--host-only-net2"]
        if self.kind == "hostonlyif":
            card = ["--nic2", "hostonly", "--hostonlyadapter2"]
        return ["modifyvm", machine.uuid, *card, self.name, *_card(machine, nictype)]


def check(
    options: Options, vboxmanage: VBoxManage, version: tuple[int, int, int], platform: str = sys.platform
) -> None:
    """Raise Usage or CheckFailed for a second card that can't be."""
    if options.wants_hostonly and options.bridged:
        raise Usage(
            "a machine can't have both a host-only and a bridged network card", hint="leave one of the two options out"
        )
    if options.bridged:
        names = [block.get("Name", "") for block in parse.blocks(vboxmanage("list", "bridgedifs"))]
        if options.bridged not in names:
            raise CheckFailed(
                f"no network interface {options.bridged!r} was found to bridge to",
                hint=f"there are: {', '.join(names) or 'none'}",
            )
    if options.wants_hostonly:
        host = host_address(options)
        _check_allowed(host, version, platform)
        if _existing(vboxmanage, host, _kind(platform)) is None and (other := collision(host.network, _interfaces())):
            raise CheckFailed(
                f"the network {host.network} is in use on this computer, by {other}",
                hint="choose another: --virtualbox-hostonly-cidr 192.168.60.1/24",
            )


def host_address(options: Options) -> IPv4Interface:
    """The host's address on the host-only network. Raises Usage."""
    text = options.hostonly_cidr or HOSTONLY_CIDR
    try:
        host = IPv4Interface(text)
    except ValueError as error:
        raise Usage(f'invalid network "{text}": {error}', hint=f"--virtualbox-hostonly-cidr {HOSTONLY_CIDR}") from error
    if host.network.prefixlen > 24 or host.ip == host.network.network_address:
        raise Usage(
            f"{text!r} isn't the host's address on a network of 256 addresses or more",
            hint=f"--virtualbox-hostonly-cidr {HOSTONLY_CIDR}",
        )
    return host


def collision(network: IPv4Network, interfaces: Iterable[tuple[str, IPv4Interface]]) -> str:
    """The interface whose network overlaps, "" for none."""
    return next((name for name, address in interfaces if address.network.overlaps(network)), "")


def attach(
    machine: Machine, folder: MachineFolder, options: Options, vboxmanage: VBoxManage, platform: str = sys.platform
) -> None:
    """Give the machine its second card, and make what that needs."""
    if options.bridged:
        vboxmanage(
            *("modifyvm", machine.uuid, "--nic2", "bridged", "--bridgeadapter2", options.bridged),
            *_card(machine, options.nat_nictype),
        )
    if options.wants_hostonly:
        with vboxmanage.alone():
            network = _join(folder, host_address(options), vboxmanage, _kind(platform))
        vboxmanage(*network.words(machine, options.nat_nictype))


def interfaces(machine: Machine, folder: MachineFolder) -> tuple[Interface, ...]:
    """Both cards for the seed, where the second has a fixed address; else none, and the guest asks DHCP on each."""
    network = _read(folder)
    if network is None:
        return ()
    from machine.guest.seed import Interface

    return (Interface(machine.mac), Interface(settings.second_mac(machine), network.address))


def detach(folder: MachineFolder, vboxmanage: VBoxManage) -> None:
    """Remove the adapter that we made, unless another virtual machine uses it."""
    network = _read(folder)
    if network is None:
        return
    if network.made and not _is_used(network, folder, vboxmanage):
        with contextlib.suppress(MachineError):  # it is gone already
            vboxmanage(network.kind, "remove", *_named(network))
    (folder / NOTE).unlink(missing_ok=True)


def _join(folder: MachineFolder, host: IPv4Interface, vboxmanage: VBoxManage, kind: str) -> HostOnly:
    others = list(_others(folder))
    address = _free(host, kind, {other.address for other in others})
    name = _existing(vboxmanage, host, kind)
    if name is not None:
        made = any(other.made and other.name == name for other in others)
        network = HostOnly(kind, name, address, made)
        files.write(folder / NOTE, json.dumps(asdict(network)))
        return network
    name = _make_net(host, vboxmanage) if kind == "hostonlynet" else _make_if(vboxmanage)
    network = HostOnly(kind, name, address, made=True)
    # Before the next call, which may fail: remove must know of it.
    files.write(folder / NOTE, json.dumps(asdict(network)))
    if kind == "hostonlyif":
        vboxmanage("hostonlyif", "ipconfig", name, "--ip", str(host.ip), "--netmask", str(host.netmask))
    return network


def _make_if(vboxmanage: VBoxManage) -> str:
    printed = vboxmanage("hostonlyif", "create")
    made = _MADE.search(printed)
    if made is None:
        raise DriverFailed("VBoxManage doesn't print which host-only adapter it made", details=printed)
    return made[1]


def _make_net(host: IPv4Interface, vboxmanage: VBoxManage) -> str:
    name = f"machine-{host.network.network_address}"
    upper = host.network.network_address + _MACHINES["hostonlynet"][0] - 1
    vboxmanage(
        *("hostonlynet", "add", "--name", name, "--netmask", str(host.netmask)),
        *("--lower-ip", str(host.ip), "--upper-ip", str(upper), "--enable"),
    )
    return name


def _existing(vboxmanage: VBoxManage, host: IPv4Interface, kind: str) -> str | None:
    """The adapter or network with that address that is there already."""
    for block in parse.blocks(vboxmanage("list", f"{kind}s")):
        address = block.get("IPAddress") or block.get("LowerIP") or ""
        with contextlib.suppress(ValueError):
            if IPv4Interface(f"{address}/{block.get('NetworkMask', '')}") == host:
                return block["Name"]
    return None


def _free(host: IPv4Interface, kind: str, taken: set[str]) -> str:
    for number in _MACHINES[kind]:
        ip = IPv4Address(host.network.network_address + number)
        address = f"{ip}/{host.network.prefixlen}"
        if address not in taken and ip != host.ip:
            return address
    raise DriverFailed(f"no address is free on {host.network}", hint="machine ls")


def _others(folder: MachineFolder) -> Iterator[HostOnly]:
    for note in folder.path.parent.glob(f"*/{NOTE}"):
        if note.parent != folder.path and (network := _read(MachineFolder(note.parent))):
            yield network


def _read(folder: MachineFolder) -> HostOnly | None:
    try:
        return HostOnly(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_used(network: HostOnly, folder: MachineFolder, vboxmanage: VBoxManage) -> bool:
    return (
        any(other.name == network.name for other in _others(folder))
        or re.search(rf"Attachment:\s+Host-only \w+ '{re.escape(network.name)}'", vboxmanage("list", "--long", "vms"))
        is not None
    )


def _named(network: HostOnly) -> list[str]:
    return [network.name] if network.kind == "hostonlyif" else ["--name", network.name]


def _card(machine: Machine, nictype: str) -> list[str]:
    mac = settings.second_mac(machine).replace(":", "")
    return ["--nictype2", nictype, "--macaddress2", mac, "--cableconnected2", "on"]


def _kind(platform: str) -> str:
    return "hostonlynet" if platform == "darwin" else "hostonlyif"


def _check_allowed(host: IPv4Interface, version: tuple[int, int, int], platform: str) -> None:
    if platform == "win32" or version < (6, 1, 28) or host.network.subnet_of(_ALLOWED):
        return
    with contextlib.suppress(OSError):
        for word in _CONF.read_text(encoding="utf-8").split():
            with contextlib.suppress(ValueError):
                if host.network.subnet_of(IPv4Network(word, strict=False)):
                    return
    raise CheckFailed(
        f"VirtualBox allows host-only networks in {_ALLOWED} only, and {host.network} isn't",
        hint=f'echo "* {host.network}" | sudo tee -a {_CONF}, or leave --virtualbox-hostonly-cidr out',
    )


def _interfaces() -> Iterator[tuple[str, IPv4Interface]]:
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            with contextlib.suppress(ValueError):
                yield name, IPv4Interface(f"{address.address}/{address.netmask}")

"""The domain as libvirt is to have it: defined by create, and again by a start when something else is asked for.

What the user changed in it (with virt-manager, say) stays until then.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from machine import files
from machine.errors import NoSuchImage
from machine.paths import Image
from machine.run import which

from . import domain, hypervisor
from .connection import explained
from .domain import Parts

if TYPE_CHECKING:
    from .driver import Libvirt

# What was defined last.
DEFINED = "domain.xml"


def define(driver: Libvirt) -> None:
    """Upload what isn't there yet, make the machine's volumes, and define the domain unless it is as it should be."""
    import libvirt

    image = Image(driver.machine.image)
    if not image.kernel.exists():
        raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
    parts = _parts(driver, image)
    described = {network: _described(driver, parts, network) for network in _user_networks(driver)}
    written = driver.home / DEFINED
    if written.exists() and written.read_text(encoding="utf-8") in described.values():
        return
    with explained(f"the domain {parts.name} can't be defined"):
        for network, xml in described.items():
            try:
                driver.connection.raw.defineXML(xml)
            except libvirt.libvirtError as error:
                # It came with libvirt 9.0, and some builds, Debian 12's among them, leave it out.
                if network == list(described)[-1] or not hypervisor.lacks_passt(error):
                    raise
            else:
                files.write(written, xml)
                return


def _described(driver: Libvirt, parts: Parts, network: str) -> str:
    return domain.describe(driver.machine, driver.home, dataclasses.replace(parts, user_network=network))


def _user_networks(driver: Libvirt) -> list[str]:
    """Those to be tried, the best one first; "" where libvirt's network is used."""
    if not driver.connection.uri.is_session:
        return [""]
    if (asked := driver.option("user_network")) != "auto":
        return [asked]
    return ["passt", "slirp"] if which("passt") else ["slirp"]


def _parts(driver: Libvirt, image: Image) -> Parts:
    chosen = hypervisor.choose(driver.option("domain_type"), driver.connection, driver.home, driver.run)
    driver.pool.ready()
    shared = {
        what: driver.pool.shared(f"machineos-{image.digest}-{what}", path, driver.advance).path()
        for what, path in (("image", image.file), ("kernel", image.kernel), ("initrd", image.initrd))
    }
    size = driver.machine.disk_mib << 20
    return Parts(
        name=_name(driver),
        type=chosen.type,
        architecture=chosen.architecture,
        emulator=chosen.emulator,
        command_line=image.command_line.read_text(encoding="utf-8").strip(),
        disk=driver.pool.make(driver.volume("disk.qcow2"), size=size, format="qcow2").path(),
        seed=driver.pool.make(driver.volume("seed.iso"), size=0).path(),
        console=_console(driver),
        network="" if driver.connection.uri.is_session else driver.network.name,
        user_network="",
        **shared,
    )


def _name(driver: Libvirt) -> str:
    """machine-NAME, as virt-manager shows it; another store may have a machine of the same name."""
    if (there := driver.find()) is not None:
        return str(there.name())
    name = f"machine-{driver.machine.name}"
    with explained(f"{driver.connection.uri} doesn't tell of its domains"):
        names = {there.name() for there in driver.connection.raw.listAllDomains()}
    return f"{name}-{driver.machine.uuid[:8]}" if name in names else name


def _console(driver: Libvirt) -> str:
    """Where the console's log lies, on the hypervisor's host: there it is a volume, which the helper fetches."""
    if driver.connection.uri.is_remote:
        return str(driver.pool.make(driver.volume("console.log"), size=0).path())
    return os.path.realpath(driver.home.console)

"""The domain as libvirt is to have it: defined by create, and again by a start when something else is asked for.

What the user changed in it (with virt-manager, say) stays until then.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from machine import acceleration, files
from machine.errors import NoSuchImage
from machine.paths import Image
from machine.run import which

from . import domains, hypervisor
from .connection import explained
from .domains import Parts
from .place import Place

# What was defined last.
DEFINED = "domain.xml"


def define(place: Place, advance: Callable[[str], None]) -> None:
    """Upload what isn't there yet, make the machine's volumes, and define the domain unless it is as it should be.

    advance: told how far the upload is.
    """
    import libvirt

    image = Image(place.machine.image)
    if not image.kernel.exists():
        raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
    parts = _parts(place, image, advance)
    described = {network: _described(place, parts, network) for network in _user_networks(place)}
    written = place.folder / DEFINED
    if written.exists() and written.read_text(encoding="utf-8") in described.values():
        return
    with explained(f"the domain {parts.name} can't be defined"):
        for network, xml in described.items():
            try:
                place.connection.raw.defineXML(xml)
            except libvirt.libvirtError as error:
                # It came with libvirt 9.0, and some builds, Debian 12's among them, leave it out.
                if network == list(described)[-1] or not hypervisor.lacks_passt(error):
                    raise
            else:
                files.write(written, xml)
                return


def _described(place: Place, parts: Parts, network: str) -> str:
    return domains.describe(place.machine, place.folder, dataclasses.replace(parts, user_network=network))


def _user_networks(place: Place) -> list[str]:
    """Those to be tried, the best one first; "" where libvirt's network is used."""
    if not place.uri.is_session:
        return [""]
    if (name := place.options.user_network) != "auto":
        return [name]
    return ["passt", "slirp"] if which("passt") else ["slirp"]


def _parts(place: Place, image: Image, advance: Callable[[str], None]) -> Parts:
    chosen = place.chosen()
    place.pool.ready()
    shared = {
        what: place.pool.shared(f"machineos-{image.digest}-{what}", path, advance).path()
        for what, path in (("image", image.file), ("kernel", image.kernel), ("initrd", image.initrd))
    }
    size = place.machine.disk_mib << 20
    return Parts(
        name=_name(place),
        type=chosen.type,
        architecture=chosen.architecture,
        emulator=chosen.emulator,
        command_line=_command_line(image, chosen),
        disk=place.pool.make(place.volume("disk.qcow2"), size=size, format="qcow2").path(),
        seed=place.pool.make(place.volume("seed.iso"), size=0).path(),
        console=_console(place),
        network="" if place.uri.is_session else place.network.name,
        user_network="",
        **shared,
    )


def _command_line(image: Image, chosen: hypervisor.Choice) -> str:
    """The kernel's."""
    # libvirt's "qemu" is QEMU that emulates.
    more = acceleration.kernel_options("tcg" if chosen.type == "qemu" else chosen.type, chosen.architecture)
    return f"{image.command_line.read_text(encoding='utf-8').strip()} {more}".strip()


def _name(place: Place) -> str:
    """machine-NAME, as virt-manager shows it; another store may have a machine of the same name."""
    if (domain := place.find()) is not None:
        return str(domain.name())
    name = f"machine-{place.machine.name}"
    with explained(f"can't look up the domains on {place.uri}"):
        names = {domain.name() for domain in place.connection.raw.listAllDomains()}
    return f"{name}-{place.machine.uuid[:8]}" if name in names else name


def _console(place: Place) -> str:
    """Where the console's log lies, on the hypervisor's host: there it is a volume, which the helper fetches."""
    if place.uri.is_remote:
        return str(place.pool.make(place.volume("console.log"), size=0).path())
    return os.path.realpath(place.folder.console)

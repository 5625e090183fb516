"""Switching a machine on and off, with what belongs to that: its saved memory, console, clock and helper process."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from machine import files
from machine.driver import State

from . import definition, hypervisor
from .connection import explained
from .place import Place

if TYPE_CHECKING:
    import libvirt

# What QEMU and passt say of a port that they can't open.
_NO_FORWARD = re.compile("host forwarding rule|Failed to bind port")
# What the helper of a running machine is started as: python -m.
MODULE = "machine.drivers.libvirt"


def start(place: Place, say: Callable[[str], None], advance: Callable[[str], None]) -> bool:
    """See Driver.start. say, advance: the driver's."""
    domain = place.own_domain()
    with explained(f'the machine "{place.machine.name}" can\'t be started'):
        if domain.isActive():
            _go_on(domain)
            return False
        saved = bool(domain.hasManagedSaveImage())
        with place.alone(say):
            place.make_ready()
            if not saved:
                definition.define(place, advance)
        if saved:
            _load(domain)
        else:
            _boot(place)
    begin_helper(place)
    return saved


def press_button(domain: libvirt.virDomain, state: State, *, again: bool) -> None:
    """ACPI's power button, after a paused guest has been let go on. again: it didn't help; ask the guest agent, too."""
    import libvirt

    with explained("can't send the machine the signal to shut down"):
        if state is State.PAUSED:
            hypervisor.drop_state(domain)
            domain.resume()
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        if again:
            with contextlib.suppress(libvirt.libvirtError):
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)


def kill(domain: libvirt.virDomain) -> None:
    with explained("the machine can't be killed"):
        if domain.isActive():
            domain.destroy()
        hypervisor.drop_state(domain)


def set_clock(domain: libvirt.virDomain) -> None:
    """A guest that goes on after a while has missed time; without an agent it must live with that."""
    import libvirt

    with contextlib.suppress(libvirt.libvirtError):
        if domain.isActive():
            domain.setTime({"seconds": int(time.time()), "nseconds": 0})


def begin_helper(place: Place) -> None:
    """Start the helper of a machine that was switched on, if it needs one."""
    from machine import helper
    from machine.folders import over_ssh

    over_ssh.forget(place.folder)
    if place.needs_helper:
        helper.begin(place.folder, MODULE)


def ensure_helper(place: Place) -> None:
    """Start the helper where there is none: this host, or the helper, may have ended before the machine did."""
    from machine import helper

    if place.needs_helper:
        helper.ensure(place.folder, MODULE)


def _boot(place: Place) -> None:
    import libvirt

    place.pool.replace(place.volume("seed.iso"), place.folder.seed)
    _rotate_console(place)
    try:
        place.domain().create()
    except libvirt.libvirtError as error:
        if place.on_loopback and _NO_FORWARD.search(str(error)):
            from machine.docker.ports import refused

            raise refused(place.address(), str(error)) from error
        raise


def _load(domain: libvirt.virDomain) -> None:
    """Go on from the saved memory."""
    import libvirt

    # libvirt removes the state after the guest began to run, and only warns where it can't.
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    _go_on(domain)


def _go_on(domain: libvirt.virDomain) -> None:
    """Let the guest run; before, its saved state goes: it would be older than the disk, and loaded by a start."""
    hypervisor.drop_state(domain)
    domain.resume()
    set_clock(domain)


def _rotate_console(place: Place) -> None:
    if place.uri.is_remote:
        place.pool.delete(place.volume("console.log"))
        place.pool.make(place.volume("console.log"), size=0)
    # Made here, so that it is ours: libvirt's virtlogd, which is root, only adds to it.
    console = place.folder.console
    if console.exists():
        console.replace(console.with_suffix(".log.1"))
    files.write(console, "")

"""What the hypervisor behind a connection can do, and what it says of a domain."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from machine import packages
from machine.driver import State
from machine.errors import CheckFailed
from machine.paths import MachineFolder
from machine.run import Run

from .connection import Connection, explained, is_error
from .domains import board

if TYPE_CHECKING:
    import libvirt

# virDomainState, by number: libvirt isn't imported where only its numbers are needed.
_STATES = {
    1: (State.RUNNING, "running"),
    2: (State.RUNNING, "blocked"),
    3: (State.PAUSED, "paused"),
    4: (State.STOPPING, "shutting down"),
    5: (State.STOPPED, "shut off"),
    6: (State.ERROR, "crashed"),
    7: (State.PAUSED, "suspended by the guest"),
}
_SHUTOFF = 5
# Why a domain is shut off (virDomainShutoffReason), and paused (virDomainPausedReason), where it tells something.
_SHUTOFF_REASONS = {
    1: "the guest shut down",
    2: "destroyed",
    3: "crashed",
    6: "failed to start",
    8: "libvirtd ended it",
}
_PAUSED_REASONS = {5: "an I/O error of the disk: is its storage pool full?", 11: "it is being started"}


@dataclass(frozen=True)
class Choice:
    """type is "kvm" or "qemu"; emulator a path on the hypervisor's host."""

    type: str
    architecture: str
    emulator: str
    notes: list[str]


def choose(domain_type: str, connection: Connection, folder: MachineFolder, run: Run, architecture: str = "") -> Choice:
    """How a domain runs here. domain_type: "auto", "kvm" or "qemu". Raises CheckFailed.

    architecture: of the domain's processors, the hypervisor's host's when none is given.
    """
    with explained(f"can't read the hypervisor's type from {connection.uri}"):
        name, here = connection.raw.getType(), str(connection.raw.getInfo()[0])
    wanted = architecture or here
    if name != "QEMU":
        raise CheckFailed(
            f"{connection.uri} is {name}, not QEMU", hint="use the system's: --libvirt-uri qemu:///system"
        )
    if domain_type not in {"auto", "kvm", "qemu"}:
        raise CheckFailed(
            f'invalid domain type "{domain_type}"', hint="use auto, kvm or qemu: --libvirt-domain-type kvm"
        )
    emulator = {kind: _emulator(connection, wanted, kind) for kind in ("kvm", "qemu")}
    notes: list[str] = []
    if wanted != here:
        if domain_type == "kvm":
            raise CheckFailed(
                f"kvm runs {here} processors only, and the machine has {wanted}", hint="leave out --libvirt-domain-type"
            )
        domain_type = "qemu"
        notes = [f"{wanted} processors are emulated in software (TCG) on the {here} host, which is slow"]
    elif domain_type == "auto":
        domain_type, notes = _proved(connection, emulator, folder, run)
    if not (path := emulator[domain_type]):
        raise CheckFailed(
            f"{connection.uri} can't run domains of the type {domain_type} with {wanted} processors",
            hint=packages.hint(f"qemu-system-{wanted}") if domain_type == "qemu" else "--libvirt-domain-type qemu",
        )
    return Choice(domain_type, wanted, path, notes)


def _emulator(connection: Connection, architecture: str, kind: str) -> str:
    import libvirt

    try:
        xml = connection.raw.getDomainCapabilities(None, architecture, board(architecture), kind)
    except libvirt.libvirtError:  # of that kind there is none
        return ""
    return ElementTree.fromstring(xml).findtext("path", "")


def _proved(connection: Connection, emulator: dict[str, str], folder: MachineFolder, run: Run) -> tuple[str, list[str]]:
    """That libvirt offers KVM proves nothing: here a few guest instructions are run, as the driver qemu does."""
    if not emulator["kvm"]:
        return "qemu", [f"no KVM on {connection.uri}: the machine is emulated in software (TCG), which is slow"]
    if connection.uri.is_remote:
        return "kvm", []
    from machine import acceleration

    chosen = acceleration.choose(emulator["kvm"], folder.store / "acceleration.json", run)
    # libvirtd may use /dev/kvm where we may not.
    if chosen == "kvm" or (not connection.uri.is_session and not os.access("/dev/kvm", os.R_OK | os.W_OK)):
        return "kvm", []
    return "qemu", [acceleration.why_not("tcg")]


def state(domain: libvirt.virDomain) -> State:
    with explained("can't read the machine's state from libvirt"):
        number = domain.state()[0]
        if number == _SHUTOFF and domain.hasManagedSaveImage():
            return State.SAVED
    return _STATES.get(number, (State.ERROR, ""))[0]


def drop_state(domain: libvirt.virDomain) -> None:
    """Remove the memory that the domain was suspended with, if there is one."""
    with explained("the state of the suspended machine can't be removed"):
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()


def drop_used_state(domain: libvirt.virDomain) -> None:
    """Remove a memory that a guest which runs was suspended with once.

    Another command may suspend the guest at any moment: only one that runs while there is a state has used that up.
    """
    with explained("the state of the suspended machine can't be removed"):
        if domain.hasManagedSaveImage() and state(domain) is State.RUNNING:
            domain.managedSaveRemove()


def reason(domain: libvirt.virDomain) -> str:
    """The state in words, "shut off (destroyed)"."""
    with explained("can't read the machine's state from libvirt"):
        number, why = domain.state()
    text = _STATES.get(number, (State.ERROR, f"state {number}"))[1]
    known = {3: _PAUSED_REASONS, _SHUTOFF: _SHUTOFF_REASONS}.get(number, {})
    return f"{text} ({known[why]})" if why in known else text


def lacks_passt(error: libvirt.libvirtError) -> bool:
    """Whether that is why libvirt refused a domain."""
    return is_error(error, "XML_ERROR", "XML_DETAIL", "CONFIG_UNSUPPORTED") and "passt" in str(error)

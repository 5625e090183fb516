"""The contract between the core and a driver.

A driver makes, starts and ends a virtual machine, and nothing else: it doesn't wait, doesn't provision, and knows
neither SSH nor Docker. What it may need is in its Machine; everything that it writes lies in its home.
A driver is found by its entry point (group `machine.drivers`), so a wheel of somebody else can bring one.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from machine import resources
from machine.errors import DriverFailed
from machine.kinds import Kind
from machine.paths import Home
from machine.spec import Address, Machine, State

if TYPE_CHECKING:
    from machine.run import Run
    from machine.seed import Interface, Mount

__all__ = [
    "SNAPSHOT_NAME",
    "Address",
    "Autostart",
    "Driver",
    "Export",
    "Identify",
    "KeptTemplate",
    "Kind",
    "Machine",
    "NoOptions",
    "Orphan",
    "Portable",
    "Reach",
    "Resize",
    "Snapshot",
    "Snapshots",
    "State",
    "Suspend",
]


# A snapshot's name stands in file formats and command lines of several hypervisors. QEMU takes a number for the place
# of a snapshot in its list, and goes back to another than the one of that name.
SNAPSHOT_NAME = re.compile(r"(?!\d+\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class NoOptions:
    """The Options of a driver that has none."""


@dataclass(frozen=True)
class KeptTemplate:
    """A booted machine that new ones are cloned from.

    key: its name; created in ISO 8601; size_mib: what it takes on disk; what: of which system and settings, in words;
    stale: why no new machine is cloned from it any more, "" when some are; failed: why it couldn't be made or loaded,
    and machines boot without it, "" when it can be.
    """

    key: str
    created: str
    size_mib: int
    what: str
    stale: str
    failed: str = ""


@dataclass(frozen=True)
class Orphan:
    """What a hypervisor has of a machine without a record in the store.

    name, uuid: the machine's, "" where that can't be told; what: is left, in words; remove takes it away, with what is
    on its disk, and is None where it may be somebody else's: hint is then the command for whoever knows better.
    """

    name: str
    uuid: str
    what: str
    remove: Callable[[], None] | None = None
    hint: str = ""


class Driver(ABC):
    """One virtual machine.

    Options: a frozen dataclass of the driver's own settings. A field `memory` of the driver `virtualbox` becomes the
    option --virtualbox-memory; its metadata may hold `help`, `envvar`, `metavar` (what help calls its value) and `flag`
    (another spelling of the option).
    A field's metadata `sets` names the field of Machine that the option stands for, and `convert` makes its value.
    loopback: whether the core gives the machine an address of its own in 127.0.0.0/8 (machine.address).
    cloud_images: whether it boots cloud images (disks), and not machineos only.
    kind: what its machines are to us.
    machine: gets its address after `check`, and before `create`: what a driver keeps mustn't depend on that.
    user: who logs in, unless the machine says otherwise.
    say: told what the user should know, in a few words. advance: told how far a long step is, as often as one likes.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    loopback: ClassVar[bool] = True
    cloud_images: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.VM
    user: ClassVar[str] = "docker"

    def __init__(self, machine: Machine, home: Home, run: Run) -> None:
        self.machine = machine
        self.home = home
        self.run = run
        self.say: Callable[[str], None] = lambda text: None
        self.advance: Callable[[str], None] = lambda text: None

    def on_loopback(self) -> bool:
        """Whether the core gives this machine an address; for a driver where that depends on the options."""
        return self.loopback

    def lowest_port(self) -> int:
        """The first port that the hypervisor may open for this machine; more than 0 where it runs as another user."""
        return 0

    def is_local(self) -> bool:
        """Whether the machine takes its memory and disk from this host, which is then checked for them."""
        return self.kind.is_ours

    def architecture(self) -> str:
        """The processor of the host that the machine runs on: "x86_64", "aarch64". Raises MachineError."""
        return resources.architecture()

    @classmethod
    def is_available(cls) -> bool:
        """Whether this host has what the driver runs, as far as one look tells: help shows its options then.

        Quick, because it starts no program and asks no daemon; `check` finds out the rest.
        """
        return True

    @abstractmethod
    def check(self) -> list[str]:
        """Raise CheckFailed when a machine can't be made here; return notes for the user. Writes nothing."""

    @abstractmethod
    def create(self) -> None:
        """Make the virtual machine, switched off. Succeeds, changing nothing, when it is there already."""

    @abstractmethod
    def start(self) -> bool:
        """Switch on, or go on where suspend or pause stopped. Returns when the hypervisor has taken it.

        True: the guest goes on from a saved state and doesn't boot, so that its services answer at once.
        """

    @abstractmethod
    def stop(self) -> None:
        """Press the power button. Returns at once: the guest takes its time."""

    @abstractmethod
    def kill(self) -> None:
        """Pull the plug. The virtual machine is off when this returns. Succeeds when it is off already."""

    @abstractmethod
    def remove(self) -> None:
        """Kill and remove everything outside the home. Succeeds when there is nothing."""

    @abstractmethod
    def state(self) -> State: ...

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the machine's state has changed, where the hypervisor tells of that."""
        time.sleep(seconds)

    def address(self) -> Address:
        """Where the machine is reached. Raises DriverFailed while that isn't known."""
        if self.machine.address is None:
            raise DriverFailed(f'the machine "{self.machine.name}" has no address')
        return self.machine.address

    def host_key(self) -> str:
        """The SSH key of an existing host, or its fingerprint; "" when the user hasn't said which it is."""
        return ""

    def mounts(self) -> tuple[Mount, ...]:
        """Folders of the host that the guest mounts: its seed says so."""
        return ()

    def interfaces(self) -> tuple[Interface, ...]:
        """All network cards of the machine for its seed, when one has a fixed address; none when all ask DHCP."""
        return ()

    def warnings(self) -> list[str]:
        """What is amiss with a running machine without breaking it (a port that is taken): `status` shows it."""
        from machine import oom

        return [text] if (text := oom.warning(self.home)) else []

    @classmethod
    def templates(cls, store: Path) -> list[KeptTemplate]:
        """The booted machines that this driver keeps in the store to clone new ones from."""
        return []

    @classmethod
    def remove_template(cls, store: Path, key: str) -> None:
        """Remove the template of that key; machines cloned from it stay as they are."""
        raise DriverFailed(f"{cls.name} machines are made without templates")

    @classmethod  # noqa: B027 - most drivers keep none
    def sweep_templates(cls, store: Path) -> None:
        """Remove what a killed process left of a template: a folder templates/.KEY.new that nobody is at work on."""

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        """What the hypervisor remembers of machines of this store that aren't known.

        Asks nobody where nothing can be: neither a tool that isn't installed nor a daemon that would have to be started
        for it. Raises MachineError.
        """
        return []

    def diagnosis(self) -> str:
        """Lines that help when a wait has timed out: the hypervisor's view, its log."""
        return f"the hypervisor says: {self.state()}"


# What only some drivers can do. The core asks isinstance(driver, Suspend), never for a driver's name.


@runtime_checkable
class Suspend(Protocol):
    """`start` goes on where `suspend` stopped; the state in between is SAVED."""

    def suspend(self) -> None:
        """Write the machine's memory to disk and switch it off. Raises DriverFailed when it isn't running."""


@dataclass(frozen=True)
class Snapshot:
    """created in ISO 8601; running: whether the memory of a running machine is part of it."""

    name: str
    created: str
    running: bool


@runtime_checkable
class Snapshots(Protocol):
    """Memory, if the machine runs, and disk at one moment, kept under a name."""

    def snapshot(self, name: str) -> None:
        """Raises DriverFailed when there is one of that name."""

    def snapshots(self) -> list[Snapshot]:
        """Oldest first."""

    def restore(self, name: str) -> None:
        """Bring the machine back, running if it was. Raises DriverFailed when there is none of that name."""

    def forget(self, name: str) -> None:
        """Remove the snapshot. Raises DriverFailed when there is none of that name."""


@runtime_checkable
class Resize(Protocol):
    """Other sizes for a machine that is there."""

    def resize(self, wanted: Machine) -> list[str]:
        """Bring memory_mib, cpus and disk_mib in line with wanted; returns those that wait for the next start."""


@dataclass(frozen=True)
class Export:
    """What a stopped machine consists of, beside its record and keys.

    files: the name in the archive, one of the driver's `parts`, and the file; left: what stays behind, in words.
    """

    files: dict[str, Path]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reach:
    """What a machine can get at of this host that not every machine can.

    what: in words, after "the machine asks for"; without: the same machine, but for that.
    """

    what: str
    without: Callable[[Machine], Machine]


@runtime_checkable
class Portable(Protocol):
    """A stopped machine can be written into a file, and made again from it in another store.

    parts: the names of all files of a home that such a machine may consist of: import takes no others.
    """

    parts: ClassVar[frozenset[str]]

    def export(self) -> AbstractContextManager[Export]:
        """What to write; it stays as it is for as long as the block takes."""

    def reaches(self) -> list[Reach]:
        """What the machine's options, and those that are absent, let it reach. Asks nothing but the options."""

    def accept(self) -> Machine:
        """Check the parts that lie in the home now, which a stranger may have made, before anything opens them.

        Returns the machine with what follows from them and from this host (disk_mib, options). `create` comes after it,
        and uses them. Raises MachineError.
        """


@runtime_checkable
class Identify(Protocol):
    """Virtual machines that somebody else made can be used as they are."""

    @classmethod
    def identify(cls, folder: Path, name: str, store: Path, run: Run) -> str:
        """The UUID of the virtual machine of that name, whose files lie in folder. Raises CheckFailed: why not."""


@runtime_checkable
class Autostart(Protocol):
    """The hypervisor starts the machine when the host boots."""

    def set_autostart(self, on: bool) -> None: ...

    def autostart(self) -> bool: ...

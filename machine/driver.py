"""The contract between the core and a driver.

A driver makes, starts and ends a virtual machine, and nothing else: it doesn't wait, doesn't provision, and knows
neither SSH nor Docker. It finds all that it needs in its Machine, and writes only into its folder.
A driver is found by its entry point (group `machine.drivers`), so other packages can bring drivers.
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
from machine.errors import CheckFailed, DriverFailed
from machine.kinds import Kind
from machine.paths import MachineFolder
from machine.spec import Address, Machine, State

if TYPE_CHECKING:
    from machine.folders.mount_spec import Folder
    from machine.guest.seed import Interface, Lan, Mount
    from machine.run import Run

__all__ = [
    "SNAPSHOT_NAME",
    "Address",
    "Autostart",
    "Driver",
    "Export",
    "FindsExisting",
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


# A snapshot's name is used in file formats and command lines of several hypervisors. QEMU takes a number for the index
# of a snapshot in its list, and would restore another snapshot than the one with that name.
SNAPSHOT_NAME = re.compile(r"(?!\d+\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class NoOptions:
    """The Options of a driver without options."""


@dataclass(frozen=True)
class KeptTemplate:
    """A booted machine that new ones are cloned from.

    key: its name; created in ISO 8601; size_mib: its size on disk; what: its system and settings, in words;
    stale: why no new machine is cloned from it any more, else ""; failed: why it couldn't be made or loaded, so that
    machines boot without it, else "".
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

    name, uuid: the machine's, "" if unknown; what: the rest, in words. remove deletes it with its disk. remove is None
    if it may belong to somebody else; hint is then the command for a user who knows better.
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
    loopback: whether the core gives the machine its own address in 127.0.0.0/8 (machine.address).
    cloud_images: whether it boots cloud images (disks), and not machineos only.
    networks: whether its machines can be on a network with others (machine.network).
    shares: whether machines get the folders that they are asked for (machine.mounts).
    binds_folders: whether the guest shares our kernel, so that a folder is only bound to its place.
    emulates: whether its machines can have other processors than the host that they run on (machine.architecture).
    kind: what its machines are to us.
    machine: gets its address after `check`, and before `create`: what a driver keeps mustn't depend on that.
    user: the user who logs in, unless the machine says otherwise.
    say(text) tells the user something in a few words. advance(text) reports the progress of a long step, and may be
    called often.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    loopback: ClassVar[bool] = True
    cloud_images: ClassVar[bool] = False
    networks: ClassVar[bool] = False
    shares: ClassVar[bool] = False
    binds_folders: ClassVar[bool] = False
    emulates: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.VM
    user: ClassVar[str] = "docker"

    def __init__(self, machine: Machine, folder: MachineFolder, run: Run) -> None:
        self.machine = machine
        self.folder = folder
        self.run = run
        self.say: Callable[[str], None] = lambda text: None
        self.advance: Callable[[str], None] = lambda text: None

    def on_loopback(self) -> bool:
        """Whether the core gives this machine an address; drivers override it if that depends on the options."""
        return self.loopback

    def lowest_port(self) -> int:
        """The lowest port that the hypervisor may open for this machine; more than 0 if it runs as another user."""
        return 0

    def is_local(self) -> bool:
        """Whether the machine uses this host's memory and disk, which are then checked."""
        return self.kind.is_ours

    def architecture(self) -> str:
        """The machine's processor: "x86_64", "aarch64". Raises MachineError."""
        return self.machine.architecture or self.host_architecture()

    def host_architecture(self) -> str:
        """The processor of the host that the machine runs on. Raises MachineError."""
        return resources.architecture()

    def check_architecture(self) -> None:
        """Raise CheckFailed when the machine can't have the processor that it is to have."""
        asked = self.machine.architecture
        if asked and not self.emulates and asked != self.host_architecture():
            raise CheckFailed(
                f"the driver {self.name} can't run a machine with {asked} processors here",
                hint=f"the driver qemu emulates them: machine create --driver qemu --arch {asked}",
            )

    @classmethod
    def is_available(cls) -> bool:
        """Whether this host seems to have the driver's tools; if so, help shows the driver's options.

        It is quick: it starts no program and asks no daemon. `check` tests the rest.
        """
        return True

    @abstractmethod
    def check(self) -> list[str]:
        """Raise CheckFailed when a machine can't be made here; return notes for the user. Writes nothing."""

    @abstractmethod
    def create(self) -> None:
        """Make the virtual machine, switched off. Succeeds without a change if it exists."""

    @abstractmethod
    def start(self) -> bool:
        """Switch on, or continue after suspend or pause. Returns when the hypervisor has accepted it.

        True: the guest continues from a saved state and doesn't boot, so its services answer at once.
        """

    @abstractmethod
    def stop(self) -> None:
        """Press the power button. Returns at once, while the guest shuts down."""

    @abstractmethod
    def kill(self) -> None:
        """Switch off at once. The virtual machine is off when this returns. Succeeds if it is off already."""

    @abstractmethod
    def remove(self) -> None:
        """Kill the machine, and remove everything outside its folder. Succeeds if there is nothing."""

    @abstractmethod
    def state(self) -> State: ...

    def pause(self, seconds: float) -> None:
        """Wait so many seconds; end earlier if the hypervisor reports that the machine's state has changed."""
        time.sleep(seconds)

    def address(self) -> Address:
        """The machine's address. Raises DriverFailed while it is unknown."""
        if self.machine.address is None:
            raise DriverFailed(f'the machine "{self.machine.name}" has no address')
        return self.machine.address

    def host_key(self) -> str:
        """The SSH host key of an existing host, or its fingerprint; "" if the user gave none."""
        return ""

    @property
    def relays_folders(self) -> bool:
        """Whether the machine's helper mounts its folders, over SSH (folders/over_ssh.py); else its guest does."""
        return False

    def mounts(self) -> tuple[Mount, ...]:
        """Folders of the host that the guest mounts, for its seed."""
        return ()

    def folders(self) -> list[Folder]:
        """The folders of the host that the machine shares, if its guest can mount them."""
        if not self.machine.mounts:
            return []  # `machine status` asks each time
        from machine.folders import mount_spec

        return [mount_spec.parse(text) for text in self.machine.mounts]

    def shares_home(self) -> bool:
        """Whether a machine gets the user's home folder when nothing else was said."""
        return self.shares

    def unmounted(self, timeout: float = 0.0) -> dict[str, str]:
        """Shared folders that the guest of a machine that is up hasn't: their paths in the guest, each with the reason.

        It asks no guest. timeout in seconds: wait so long for them, where that makes sense.
        """
        from machine.guest import console

        targets = {folder.target for folder in self.folders()}
        told = console.folders(self.folder.console) if targets else {}
        return {path: why for path, why in told.items() if path in targets}

    def update_folders(self) -> None:  # noqa: B027 - where the guest or a helper looks into machine.json
        """Have a machine that is up reach the folders in machine.mounts, which have changed, and no others."""

    def can_mount(self) -> bool:
        """Whether the guest of a machine that is up can reach one more shared folder, without a restart."""
        return True

    def interfaces(self) -> tuple[Interface, ...]:
        """All network cards of the machine, for its seed, if one has a fixed address; empty if all use DHCP."""
        return ()

    def lan(self) -> Lan | None:
        """The network card that leads to other machines, for the seed; None for a machine without one."""
        return None

    def why_no_network(self) -> str:
        """Why this machine can't be on a network with others, "" if it can. It starts no machine."""
        return "" if self.networks else f"the driver {self.name} has no networks between machines"

    def warnings(self) -> list[str]:
        """Problems of a running machine that don't stop it (a port that is taken); `status` shows them."""
        from machine.guest import oom

        return [text] if (text := oom.warning(self.folder)) else []

    @classmethod
    def templates(cls, store: Path) -> list[KeptTemplate]:
        """The booted machines that this driver keeps in the store to clone new ones from."""
        return []

    @classmethod
    def remove_template(cls, store: Path, key: str) -> None:
        """Remove the template with that key; machines cloned from it don't change."""
        raise DriverFailed(f"{cls.name} machines are made without templates")

    @classmethod  # noqa: B027 - most drivers keep none
    def sweep_templates(cls, store: Path) -> None:
        """Remove what a killed process left of a template: a folder templates/.KEY.new that no command works on."""

    @classmethod
    def orphans(cls, store: Path, known: list[Machine], run: Run) -> list[Orphan]:
        """What the hypervisor has of this store's machines that aren't among the known ones.

        Calls no tool that isn't installed, and no daemon that would have to be started for it. Raises MachineError.
        """
        return []

    def diagnosis(self) -> str:
        """Lines that help when a wait has timed out: the hypervisor's view, its log."""
        return f"the hypervisor says: {self.state()}"


# What only some drivers can do. The core asks isinstance(driver, Suspend), never for a driver's name.


@runtime_checkable
class Suspend(Protocol):
    """`start` continues where `suspend` stopped; the state in between is SAVED."""

    def suspend(self) -> None:
        """Write the machine's memory to disk and switch it off. Raises DriverFailed when it isn't running."""


@dataclass(frozen=True)
class Snapshot:
    """created in ISO 8601; running: whether a running machine comes back: with its memory, or booted if its kind
    keeps none.
    """

    name: str
    created: str
    running: bool


@runtime_checkable
class Snapshots(Protocol):
    """Saves the disk, and the memory if the machine runs, under a name."""

    def snapshot(self, name: str) -> None:
        """Raises DriverFailed if the name is taken."""

    def snapshots(self) -> list[Snapshot]:
        """Oldest first."""

    def restore(self, name: str) -> None:
        """Restore the machine, running if it ran then. Raises DriverFailed if no snapshot has that name."""

    def forget(self, name: str) -> None:
        """Remove the snapshot. Raises DriverFailed if no snapshot has that name."""


@runtime_checkable
class Resize(Protocol):
    """Changes the sizes of an existing machine."""

    def resize(self, wanted: Machine) -> list[str]:
        """Change memory_mib, cpus and disk_mib to those of wanted; returns those that wait for the next start."""


@dataclass(frozen=True)
class Export:
    """The files of a stopped machine, without its record and keys.

    files: (name in the archive, which is one of the driver's `parts`, and the file); left: what stays behind, in words.
    """

    files: dict[str, Path]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reach:
    """Something that a machine reaches on this host, and that not every machine reaches.

    what: in words, after "the machine asks for"; without: the same machine without it.
    """

    what: str
    without: Callable[[Machine], Machine]


@runtime_checkable
class Portable(Protocol):
    """A stopped machine can be exported to a file, and imported into another store.

    parts: the names of all files of a folder that such a machine may have: import takes no others.
    """

    parts: ClassVar[frozenset[str]]

    def export(self) -> AbstractContextManager[Export]:
        """The files to write; they don't change during the block."""

    def reaches(self) -> list[Reach]:
        """What the machine's options, or absent ones, let it reach. Depends on the options only."""

    def accept(self) -> Machine:
        """Check the parts that are now in the folder, before anything opens them: a stranger may have made them.

        Returns the machine with the values that follow from them and from this host (disk_mib, options). `create` comes
        next, and uses the parts. Raises MachineError.
        """


@runtime_checkable
class FindsExisting(Protocol):
    """The driver can use virtual machines that another program made."""

    @classmethod
    def identify(cls, folder: Path, name: str, store: Path, run: Run) -> str:
        """The UUID of the virtual machine with that name, whose files are in folder. Raises CheckFailed with the
        reason."""


@runtime_checkable
class Autostart(Protocol):
    """The hypervisor starts the machine when the host boots."""

    def set_autostart(self, on: bool) -> None: ...

    def autostart(self) -> bool: ...

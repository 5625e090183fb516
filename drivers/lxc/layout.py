"""Where the parts of a container lie: what lasts in the machine's folder, what ends with the container below /run.

LXC's configuration takes no odd characters, and the user ids of a container can't enter the store. So the container's
mounts have short paths below /run, where all may pass and only root may write. A restart of the host clears it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from machine.paths import same

# LXC's own word: lxcpath, a folder with a folder for each container.
CONTAINERS = Path("/run/machine-lxc")
# So many user and group ids a container has.
IDS = 65536
# In the machine's folder: the image of Docker's file system, and its copies.
DISK = "disk.img"
SNAPSHOTS = "snapshots"


def containers() -> list[Layout]:
    """Every container that runs, or has left something."""
    try:
        return [Layout(folder.name) for folder in sorted(CONTAINERS.iterdir()) if folder.is_dir()]
    except OSError:
        return []


@dataclass(frozen=True)
class Layout:
    """The paths of one container. name: LXC's for it, which is the machine's UUID."""

    name: str

    @property
    def folder(self) -> Path:
        return CONTAINERS / self.name

    @property
    def config(self) -> Path:
        return self.folder / "config"

    # What `launch` mounts, and how: see launch.py.
    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    # Leads to the machine's folder.
    @property
    def machine(self) -> Path:
        return self.folder / "machine"

    @property
    def seed(self) -> Path:
        return self.folder / "seed"

    @property
    def log(self) -> Path:
        return self.folder / "lxc.log"

    # An empty folder and an empty file that nobody may open: they hide others.
    @property
    def nothing(self) -> Path:
        return self.folder / "nothing"

    @property
    def no_file(self) -> Path:
        return self.folder / "no-file"

    # slirp4netns: its process, the socket on which it takes commands, what it says.
    @property
    def network_pid(self) -> Path:
        return self.folder / "slirp4netns.pid"

    @property
    def network_socket(self) -> Path:
        return self.folder / "slirp4netns.sock"

    @property
    def network_log(self) -> Path:
        return self.folder / "slirp4netns.log"

    # What the program behind the card says that leads to other machines.
    @property
    def lan_log(self) -> Path:
        return self.folder / "lan.log"

    # Mounted in the container's mount namespace only: the image's root, the same with the container's ids, what is
    # written over it, both together, and Docker's file system.
    @property
    def image(self) -> Path:
        return self.folder / "image"

    @property
    def lower(self) -> Path:
        return self.folder / "lower"

    @property
    def memory(self) -> Path:
        return self.folder / "memory"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    # A small file system with the folders of this host: see binds.py.
    @property
    def host(self) -> Path:
        return self.folder / "host"

    # Where one of these is put together.
    @property
    def stage(self) -> Path:
        return self.folder / "stage"

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    def is_of(self, folder: Path) -> bool:
        """Whether this is the container of the machine in that folder."""
        return self.machine.is_symlink() and same(self.machine, folder)

    def first_id(self) -> int | None:
        """The first of this host's user ids that the container has; None where it has none."""
        try:
            found = json.loads(self.plan.read_text(encoding="utf-8")).get("first_id")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, int) else None

"""The user's home folder in the machine, at the same path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import paths
from machine.driver import Machine
from machine.errors import CheckFailed

from .options import Options
from .settings import is_arm

if TYPE_CHECKING:
    from machine.guest.seed import Mount

NAME = "home"
# Its own there: a mount over it would hide what the guest needs.
_GUESTS = (
    "/",
    "/root",
    "/home",
    "/home/docker",
    "/usr",
    "/etc",
    "/var",
    "/bin",
    "/sbin",
    "/lib",
    "/run",
    "/tmp",
    "/dev",
)
# The guest's user docker.
_OWNER = "uid=1000,gid=1000"
_DRIVE = re.compile(r"([A-Za-z]):[\\/]?(.*)", re.DOTALL)
# DIR:PATH; a colon as the second character belongs to a drive of Windows.
_PAIR = re.compile(r"(?P<folder>(?:[A-Za-z]:)?[^:]+):(?P<path>[^:\\]+)")
_NONE_ON_ARM = "a VirtualBox machine can't mount folders on ARM, because its kernel has no vboxsf there"


@dataclass(frozen=True)
class Share:
    """folder of the host, in its own spelling; path in the guest."""

    folder: str
    path: str

    @property
    def mount(self) -> Mount:
        from machine.guest.seed import Mount

        return Mount(NAME, self.path, "vboxsf", _OWNER)


def share_of(options: Options, home: Path | None = None, *, arm: bool = is_arm()) -> Share | None:
    """What is to be shared; None for nothing. On ARM a guest has nothing: Debian's kernel has no vboxsf there."""
    if options.no_share or arm:
        return None
    if not options.share_folder:
        folder = str(home or paths.user_home())
        path = guest_path(folder)
        return Share(folder, path) if path not in _GUESTS else None
    if pair := _PAIR.fullmatch(options.share_folder):
        return Share(pair["folder"], f"/{pair['path'].strip('/')}")
    return Share(options.share_folder, guest_path(options.share_folder))


def check(options: Options, *, arm: bool = is_arm()) -> list[str]:
    """Raise CheckFailed for a folder that can't be shared; return a note when the home folder isn't."""
    if arm and options.share_folder:
        raise CheckFailed(_NONE_ON_ARM, hint="machine create --driver qemu --mount DIR")
    if arm and not options.no_share:
        return [f"your home folder isn't shared: {_NONE_ON_ARM}"]
    share = share_of(options, arm=arm)
    if share is None:
        return [] if options.no_share else ["your home folder isn't shared: the machine has a folder of its own there"]
    if not Path(share.folder).is_dir():
        raise CheckFailed(
            f"there is no folder {share.folder} to share", hint="use an existing folder: --virtualbox-share-folder DIR"
        )
    if share.path in _GUESTS:
        raise CheckFailed(
            f"{share.path} is a folder that the machine needs itself",
            hint=f"--virtualbox-share-folder {share.folder}:/mnt/host",
        )
    return []


def guest_path(folder: str) -> str:
    r"""The same path in the guest: /Users/ann for /Users/ann, /c/Users/ann for C:\Users\ann, as Git Bash spells it."""
    if drive := _DRIVE.fullmatch(folder):
        rest = drive[2].replace("\\", "/").strip("/")
        return f"/{drive[1].lower()}/{rest}".rstrip("/")
    return "/" + folder.strip("/")


def words(machine: Machine, share: Share) -> list[list[str]]:
    """The calls that make it: the folder, and leave for symbolic links in it (npm and others make some)."""
    links = f"VBoxInternal2/SharedFoldersEnableSymlinksCreate/{NAME}"
    return [
        ["sharedfolder", "add", machine.uuid, "--name", NAME, "--hostpath", share.folder],
        ["setextradata", machine.uuid, links, "1"],
    ]

"""What --mount asks for: DIR[:PATH][:ro], a folder of the host, and where it is in the machine.

The words `home` and `none` stand for the user's home folder and for nothing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from machine import config, paths
from machine.errors import CheckFailed, Usage

if TYPE_CHECKING:
    from machine.guest.seed import Mount

# Where a QEMU machine finds the server: an address of its user-mode network's, and NFS's own port.
SERVER, PORT = "10.0.2.100", 2049
# Where a machine finds it whose helper brings it by SSH. Above the ports that the kernel gives to clients.
LOOPBACK, LOOPBACK_PORT = "127.0.0.1", 61049
# What stands for NFS in the guest's list then: it is mounted from outside, and Docker waits for it.
RELAYED = "relayed"
# The user of the machine whose calls only repeat what was done on the host (see replay.py). Nobody else's: no system
# gives it to a user.
REPLAY_UID = 1835098984
# In the machine's folder: what its file handles mean. It is made when the guest connects for the first time.
DATABASE = "folders.db"
# hard: a call waits for the server as long as it takes, over a suspend too. nolock: locks hold among the machine's own
# processes. actimeo: seconds for which the guest trusts what it knows of a file. The rest is what mount.nfs would find
# out, which the guest doesn't have.
_OPTIONS = "hard,nolock,nfsvers=3,proto=tcp,mountproto=tcp,noresvport,actimeo=1"
# How mount(8) and the kernel write blanks and other characters of a path.
_ESCAPED = re.compile(r"\\([0-7]{3})")
# The machine's own folders; and what of these trees lies below.
_OWN = ("/", "/home", "/home/docker", "/root", "/var", "/tmp", "/mnt", "/opt", "/media", "/srv")
_OWN_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/mnt/data", "/mnt/seed", "/proc", "/run", "/sbin", "/sys"),
    *("/usr", "/var/lib/docker", "/var/lib/containerd", "/var/run"),
)
# Where a guest that shares our kernel has the folders of this computer, to bind them to their places; and their type in
# the seed.
BOUND_AT, BOUND = "/mnt/host", "bound"
_EXAMPLE = 'machine create --mount "$PWD"'
HOME, NONE = "home", "none"


@dataclass(frozen=True)
class Folder:
    source: Path
    target: str
    read_only: bool


def parse(text: str) -> Folder:
    """Raises Usage for what isn't DIR[:PATH][:ro] with absolute paths."""
    source, *more = text.split(":")
    read_only = more[-1:] == ["ro"]
    if more and more[-1] in {"ro", "rw"}:
        more.pop()
    if len(more) > 1:
        raise Usage(
            f'invalid --mount "{text}": write DIR:PATH:ro', hint="the path of a shared folder can't hold a colon"
        )
    target = more[0] if more else source
    for path in (source, target):
        _check_path(path, text)
    return Folder(Path(source), str(PurePosixPath(target)), read_only)


def home() -> tuple[str, ...]:
    """The user's home folder as --mount takes it; nothing where `why_not_home` has a reason."""
    return () if why_not_home() else resolved([HOME])


def why_not_home() -> str:
    """Why the user's home folder can't be in a machine at the same path, "" when it can."""
    folder = str(paths.user_home())
    if os.name != "posix":
        return "it can't be shared from Windows yet"
    if is_own(folder):
        return f"the machine has a folder {folder} of its own"
    if ":" in folder or "\\" in folder or not folder.isprintable():
        return "its path has a colon, a backslash or a control character"
    return "" if Path(folder).is_dir() else "it isn't there"


def resolved(texts: Sequence[str]) -> tuple[str, ...]:
    """What was typed, as it is kept: by paths without links, so that one that leads elsewhere later shares nothing.

    Raises Usage.
    """
    if NONE in texts:
        if len(texts) > 1:
            raise Usage("--mount none goes with no other --mount", hint="leave out the others, or none")
        return ()
    found = []
    for text in texts:
        text = _spelled_out(text)
        folder = parse(text)
        if (source := folder.source.resolve()) != folder.source:
            text = f"{source}:{folder.target}" + (":ro" if folder.read_only else "")
        found.append(text)
    return tuple(found)


def _spelled_out(text: str) -> str:
    """With the whole path in place of `home`, of ~ (which config.toml may have), and of a path from here, as ./x."""
    source, *more = text.split(":")
    if source == HOME:
        source = str(paths.user_home())
    elif source.startswith("~"):
        source = str(paths.expanded(source))
    elif source.split("/")[0] in {".", ".."}:
        source = os.path.normpath(f"{_here()}/{source}")
    return ":".join([source, *more])


def _here() -> str:
    """The working directory as the shell spells it, and $PWD in `docker run -v`."""
    shell = os.environ.get("PWD", "")
    return shell if shell.startswith("/") and paths.same(Path(shell), Path.cwd()) else str(Path.cwd())


def check(mounts: Sequence[str], store: Path, kept: Sequence[str] = ()) -> None:
    """Raises Usage for a wrong item, or a path that two have; CheckFailed for a folder that can't be had.

    kept: what the machine has already. Of these only the paths in the machine count: a folder may have gone.
    """
    folders = [parse(text) for text in mounts]
    targets = [folder.target for folder in (*map(parse, kept), *folders)]
    if twice := sorted({target for target in targets if targets.count(target) > 1}):
        raise Usage(f"{twice[0]} is given twice", hint="give each folder once: --mount DIR, or --mount DIR:PATH")
    # A link that a container puts into the outer one would lead the inner one over the machine's own folders.
    for inner, outer in itertools.permutations(targets, 2):
        if below(inner, outer):
            raise Usage(f"{inner} lies in {outer}, which is shared, too", hint="share one of them")
    for folder in folders:
        if is_own(folder.target):
            raise Usage(
                f"{folder.target} is a folder that the machine needs itself",
                hint=f"use another path in the machine: --mount {folder.source}:/host{folder.source}",
            )
        if not folder.source.is_dir():
            what = "isn't a folder" if paths.is_there(folder.source) else "doesn't exist"
            raise CheckFailed(f"{folder.source} can't be shared: it {what}", hint=_EXAMPLE)
        if paths.below(folder.source.resolve(), store) is not None:
            raise CheckFailed(f"{folder.source} can't be shared: it lies in the store, with keys", hint=_EXAMPLE)
        if not folder.read_only and (program := _program(folder.source)):
            raise CheckFailed(
                f"{folder.source} can't be shared to be written: this program runs from {program}",
                hint=f"share it to be read: --mount {folder.source}:ro",
            )


def _program(source: Path) -> Path | None:
    """The folder of this installation that source is, or lies in."""
    from machine.folders import installation

    real = source.resolve()
    return next((one for one in installation.folders() if paths.below(real, one) is not None), None)


def hidden(store: Path) -> list[Path]:
    """What a machine doesn't see of a folder that has it somewhere below: keys, machines, what config.toml lists.

    Raises Usage for an invalid config.toml, and OSError: then nothing is shared, rather than too much.
    """
    home = paths.user_home()
    kept = (home / name for name in (".machine", ".ssh", ".docker"))
    return [store, paths.images(), *kept, *config.hidden(store)]


def mounts(texts: Sequence[str], *, relayed: bool = False) -> tuple[Mount, ...]:
    """For the seed. One that lies below another comes after it. relayed: whether the helper brings them by SSH."""
    from machine.guest.seed import Mount

    host, kind = (LOOPBACK, RELAYED) if relayed else (SERVER, "nfs")
    folders = sorted(map(parse, texts), key=lambda folder: folder.target)
    return tuple(
        Mount(f"{host}:{folder.target}", folder.target, kind, options(folder, relayed=relayed)) for folder in folders
    )


def bound(texts: Sequence[str]) -> tuple[Mount, ...]:
    """For the seed of a guest that shares our kernel: who made the machine has put them into BOUND_AT."""
    from machine.guest.seed import Mount

    folders = sorted(map(parse, texts), key=lambda folder: folder.target)
    return tuple(Mount(f"{BOUND_AT}/{bound_name(folder)}", folder.target, BOUND, "rbind") for folder in folders)


def bound_name(folder: Folder) -> str:
    """The name of the folder in BOUND_AT, which follows from what it is."""
    import hashlib  # 3 ms, and most verbs only read what is shared

    text = f"{folder.source}:{folder.target}:{folder.read_only}"
    return hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()


def options(folder: Folder, *, relayed: bool = False) -> str:
    """Those of the mount."""
    host, port = (LOOPBACK, LOOPBACK_PORT) if relayed else (SERVER, PORT)
    return f"{'ro,' if folder.read_only else ''}{_OPTIONS},port={port},mountport={port},addr={host}"


def mounted(table: str, *, bound: bool = False) -> set[str]:
    """The paths at which a guest has folders of this computer, by its /proc/mounts.

    bound: in a guest that shares our kernel a folder looks like every other mount, so it is told by its path only.
    """
    lines = [line.split(" ") for line in table.splitlines()]
    if bound:
        return {unescaped(fields[1]) for fields in lines if len(fields) > 2}
    return {
        unescaped(fields[1])
        for fields in lines
        if len(fields) > 2 and fields[2] == "nfs" and fields[0].startswith((f"{SERVER}:", f"{LOOPBACK}:"))
    }


def unescaped(text: str) -> str:
    """A path of fstab(5) or /proc/mounts."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _check_path(path: str, text: str) -> None:
    if not path.startswith("/") or path.startswith("//"):
        raise Usage(f'invalid --mount "{text}": "{path}" is not an absolute path', hint=_EXAMPLE)
    if ".." in path.split("/"):
        raise Usage(f'invalid --mount "{text}": "{path}" holds ".."', hint="write the path without it: realpath DIR")
    if not path.isprintable() or "\\" in path:
        raise Usage(f"{path!r} can't be mounted", hint="rename it, without backslashes and control characters")


def below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def is_own(target: str) -> bool:
    return target in _OWN or any(PurePosixPath(target).is_relative_to(tree) for tree in _OWN_TREES)

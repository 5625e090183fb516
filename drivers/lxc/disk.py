"""Docker's file system: ext4 in a sparse file, so that --disk holds whatever the store lies on.

A file, and not a folder of the host: overlay2 works in it on each store, it has a limit, and a copy of it is whole.
"""

from __future__ import annotations

import struct
from pathlib import Path

from machine.errors import ToolFailed
from machine.run import Run

# Seconds.
MAKE, CHECK, COPY = 120.0, 600.0, 3600.0
# The bytes of a block of a new file system, and the largest that the file system leaves over.
BLOCK = 4096


def make(path: Path, size_mib: int, run: Run) -> None:
    """Make the file, blank. An interrupted call leaves nothing under its name."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with unfinished.open("xb") as file:
        file.truncate(size_mib << 20)
    unfinished.chmod(0o600)
    options = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
    run(["mkfs.ext4", "-q", "-F", "-L", "machine-data", "-m", "1", "-E", options, unfinished], timeout=MAKE)
    unfinished.replace(path)


def copy(source: Path, target: Path, run: Run) -> None:
    """Copy the file, by reference where the file system can; else only what is written in it."""
    unfinished = target.with_name(f".{target.name}.new")
    try:
        run(["cp", "--sparse=always", "--reflink=auto", "--", source, unfinished], timeout=COPY)
    except ToolFailed:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(target)


def enlarge(path: Path, size_mib: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size_mib << 20)


def check(path: Path, run: Run, *options: str) -> None:
    """Mend the file system as far as that is safe. Raises ToolFailed for what a person must decide (e2fsck(8))."""
    checked = run(["e2fsck", "-p", *options, path], check=False, timeout=CHECK)
    if checked.code >= 4:
        raise ToolFailed(checked.argv, checked.code, checked.stdout or checked.stderr)


def fill(path: Path, run: Run) -> None:
    """Make the file system as large as the file, unless it is. It mustn't be mounted."""
    if _size(path) >= path.stat().st_size // BLOCK * BLOCK:
        return
    check(path, run, "-f")
    run(["resize2fs", path], timeout=CHECK)


def attach(path: Path, run: Run) -> str:
    """A loop device with that file, which goes with its last mount once it is detached.

    With direct I/O data is cached once, in the container's file system, and not in the file, too: writing takes as long
    as on the host, and up to three times that without. Not every file system has it.
    """
    argv: list[str | Path] = ["losetup", "--find", "--show", path]
    direct = run([*argv, "--direct-io=on"], check=False)
    found = direct if direct.code == 0 else run(argv)
    return found.stdout.strip()


def devices(path: Path, run: Run) -> list[str]:
    """The loop devices that have the file."""
    return run(["losetup", "--noheadings", "--output", "NAME", "--associated", path]).stdout.split()


def detach(device: str, run: Run) -> None:
    """Now, or with its last mount."""
    run(["losetup", "--detach", device], check=False)


def _size(path: Path) -> int:
    """The bytes of the file system, by its superblock (Linux' documentation of ext4, "Super Block")."""
    with path.open("rb") as file:
        file.seek(1024)
        raw = file.read(1024)
    low, shift, high = (struct.unpack_from("<I", raw, offset)[0] for offset in (0x4, 0x18, 0x150))
    return int(((high << 32) + low) * (1024 << shift))

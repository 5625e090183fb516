"""The owners of the store's files. A command that ran as root (`sudo machine`, a container) leaves folders that their
user can't enter. Errors name each with the command that returns it, and the other machines keep working.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from machine import paths
from machine.errors import CheckFailed, MachineError
from machine.reasons import reason

ELSEWHERE = f"export {paths.STORE_VARIABLE}=/var/tmp/machine"


def explained(error: OSError) -> MachineError:
    """The error as ours: a full disk, a file of somebody else with the command that gives it back, no folder."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    hint = ""
    if isinstance(error, PermissionError | NotADirectoryError) and (path := Path(name)).is_relative_to(paths.store()):
        hint = remedy(path) or ELSEWHERE
    return MachineError(f"{reason(error)}{f': {name}' if name else ''}", hint=hint)


def remedy(path: Path) -> str:
    """The command that lets us use a path of the store again; "" where there is none, or outside of the store."""
    store = paths.store()
    if not path.is_relative_to(store):
        return ""
    return next(filter(None, map(_command, _from(store, path))), "")


def blocked(folder: Path) -> Iterator[tuple[Path, str]]:
    """The paths that we can't use in a folder, itself included: (path, command that fixes it), each once."""
    if not os.path.lexists(folder):
        return
    if command := _command(folder):
        yield folder, command
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from blocked(Path(entry.path))
        elif command := _command(Path(entry.path)):
            yield Path(entry.path), command


def is_private(folder: Path) -> bool:
    """Whether only this user can change what lies in a folder, as far as owner and mode tell. Raises OSError."""
    if sys.platform == "win32":
        return True  # the ACL of the user's profile says so, and Python can't ask
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def check_store() -> None:
    """Raise CheckFailed when we can't use the folders that each new machine needs. Asks for a few files' rights."""
    store = paths.store()
    _check_place(store)
    for path in (store, store / "machines", store / "certs", store / "certs" / "lock", store / "machines" / ".lock"):
        if command := remedy(path):
            raise CheckFailed(f"{path} isn't yours to use: {owner(path)}", hint=command)


def _check_place(store: Path) -> None:
    """Whether the store's folder is there or can be made."""
    folder = _nearest(store)
    if remedy(folder) or (_is_folder(folder) and _may(folder, os.W_OK | os.X_OK)):
        return
    why = "isn't writable for you" if _is_folder(folder) or not os.path.lexists(folder) else "isn't a folder"
    raise CheckFailed(f"the store {store} can't be made: {folder} {why}", hint=ELSEWHERE)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _nearest(path: Path) -> Path:
    """The path, or the first of its folders that is there."""
    while not paths.is_there(path):
        path = path.parent
    return path


def of_somebody_else() -> str:
    """A warning when root uses the store of somebody else, "" otherwise."""
    if os.name != "posix" or os.geteuid() != 0:
        return ""
    if (uid := _nearest(paths.store()).stat().st_uid) == 0:
        return ""
    return (
        f"root uses the store of {_user(uid)}, {paths.store()}: {_user(uid)} can't use the files that root makes there"
    )


def owner(path: Path) -> str:
    """Words for an error: whose the path is, or why that can't be told."""
    try:
        return f"it belongs to {_user(path.lstat().st_uid)}"
    except OSError as error:
        return reason(error)


def _from(root: Path, path: Path) -> Iterator[Path]:
    """root, and each step from it down to path."""
    yield root
    for part in path.relative_to(root).parts:
        root = root / part
        yield root


def _command(path: Path) -> str:
    """The command that fixes one path: another user owns it and closed it, or we own it without an owner's rights."""
    if os.name != "posix":
        return ""
    try:
        found = path.lstat()
    except OSError:
        return ""
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not stat.S_ISREG(found.st_mode):
        return ""
    if found.st_uid != os.geteuid():
        needed = os.R_OK | os.W_OK | (os.X_OK if is_folder else 0)
        return "" if _may(path, needed) else f"sudo chown -R {_user(os.geteuid())} {shlex.quote(str(path))}"
    needed = stat.S_IRWXU if is_folder else stat.S_IRUSR
    # Root may all the same.
    return "" if found.st_mode & needed == needed or os.geteuid() == 0 else f"chmod u+rwX {shlex.quote(str(path))}"


def _may(path: Path, needed: int) -> bool:
    return os.access(path, needed, effective_ids=os.access in os.supports_effective_ids)


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)

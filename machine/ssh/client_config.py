"""A machine as an entry of ssh_config(5), under the name machine-NAME.

Each machine's entry lies in its own folder and goes with it, so a line in ~/.ssh/config that includes all of them is
always right. scp, rsync and sshfs are given the same entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from machine import files, paths
from machine.paths import MachineFolder, same
from machine.ssh import openssh
from machine.ssh.remote import Shell

_ODD = re.compile(r"[\[\]\"'\\%$*?~`]")
_MARK = "# Machines: ssh machine-NAME (written by: machine ssh-config --install)"


def alias(name: str) -> str:
    """The machine's name as a host's: it must not take the place of a host that the user has named so."""
    return f"machine-{name}"


def entry(shell: Shell) -> str:
    lines = [f"HostName {shell.address.host}", f"Port {shell.address.ssh_port}", f"User {shell.user}"]
    lines += [f"{key} {value}" for key, value in openssh.settings(shell.folder).items()]
    return "".join([f"Host {alias(shell.folder.name)}\n", *(f"  {line}\n" for line in lines)])


def write(shell: Shell) -> None:
    """Write the entry into the machine's folder, unless it stands there."""
    path, text = shell.folder.ssh_config, entry(shell)
    if not path.exists() or _text(path) != text:
        files.write(path, text)


def installed() -> bool:
    return _at(_lines(user_file())) is not None


def install() -> bool:
    """Make the user's configuration include the machines; False when it does so already."""
    path = user_file()
    lines = _lines(path)
    if _at(lines) is not None:
        return False
    files.make_folder(path.parent)
    # At the top: below a Host line it would count for that host only.
    _save(path, [_MARK, _include(), "", *lines])
    return True


def uninstall() -> bool:
    """Take that line out again; False when there is none."""
    path = user_file()
    lines = _lines(path)
    if (at := _at(lines)) is None:
        return False
    begin = at - 1 if at and lines[at - 1].rstrip() == _MARK else at
    end = at + 2 if [line.rstrip() for line in lines[at + 1 : at + 2]] == [""] else at + 1
    _save(path, lines[:begin] + lines[end:])
    return True


def user_file() -> Path:
    # Resolved: a link to somewhere else (people keep their dotfiles so) stays one.
    return (paths.user_home() / ".ssh" / "config").resolve()


def _include() -> str:
    # Quoted for blanks in the path; the star works in quotes too. A question mark stands for what means something to
    # ssh's quoting, to its tokens (in versions that have them here), or to glob(7); so no version takes it amiss.
    store = _ODD.sub("?", paths.store().as_posix())
    return f'Include "{store}/machines/*/{MachineFolder(paths.store()).ssh_config.name}"'


def _at(lines: list[str]) -> int | None:
    """Where our line stands, with whichever spelling of the store's path it was written."""
    return next((at for at, line in enumerate(lines) if line.rstrip() == _include() or _is_include(line)), None)


def _is_include(line: str) -> bool:
    ours = MachineFolder(paths.store() / "machines" / "*").ssh_config
    tail = f"/*/{ours.name}"
    path = line.removeprefix("Include ").strip().strip('"')
    return line.startswith("Include ") and path.endswith(tail) and same(Path(path[: -len(tail)]), ours.parent.parent)


def _text(path: Path) -> str:
    """In whatever encoding, and with whatever ends of lines: what we don't understand we write back as it was."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _lines(path: Path) -> list[str]:
    try:
        text = _text(path)
    except FileNotFoundError:
        return []
    return text.removesuffix("\n").split("\n") if text else []


def _save(path: Path, lines: Iterable[str]) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    files.write(path, "".join(f"{line}\n" for line in lines), mode)

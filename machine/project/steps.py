"""Provisioning steps and probes of a machine, as machine.yaml lists them: data, and what tells a changed one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from machine.errors import CheckFailed
from machine.reasons import reason

# Seconds.
STEP_TIMEOUT, PROBE_TIMEOUT = 600, 60


class Mode(StrEnum):
    """When a step runs, and as whom."""

    ONCE = "once"
    BOOT = "boot"
    USER = "user"


@dataclass(frozen=True)
class Step:
    """A script, or a copy of source (a path of this computer, absolute) to target in the machine.

    permissions: of the files, octal, "" for their own. owner: USER or USER:GROUP. timeout in seconds.
    """

    name: str
    mode: Mode = Mode.ONCE
    timeout: int = STEP_TIMEOUT
    script: str = ""
    source: str = ""
    target: str = ""
    permissions: str = ""
    owner: str = ""

    def digest(self) -> str:
        """Of all that it does: a step that was changed, or whose files were, is another one. Raises CheckFailed."""
        source = Path(self.source)
        same = {"name": "", "timeout": 0, "source": source.name}  # a project may be moved
        found = hashlib.sha256(json.dumps(dataclasses.asdict(self) | same).encode())
        if self.source:
            for path in files(source):
                found.update(f"\0{path.relative_to(source.parent)}\0".encode())
                found.update(_bytes(path) if path.is_file() else b"")
        return found.hexdigest()


@dataclass(frozen=True)
class Probe:
    """command: a line of sh that succeeds, as root, when what it asks for works. timeout in seconds."""

    name: str
    command: str
    hint: str = ""
    timeout: int = PROBE_TIMEOUT


def files(source: Path) -> list[Path]:
    """The file itself; or all in a folder, and it. Raises CheckFailed."""
    if not source.exists():
        raise CheckFailed(f"there is no file {source}", hint="machine plan")
    return [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckFailed(f"{path} can't be read: {reason(error)}") from error


def probed(probes: tuple[Probe, ...]) -> str:
    """What a record has when these have succeeded, "" where there are none."""
    return hashlib.sha256(repr(probes).encode()).hexdigest() if probes else ""


def step(data: dict[str, Any]) -> Step:
    return Step(**{**data, "mode": Mode(data["mode"])})

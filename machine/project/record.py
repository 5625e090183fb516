"""What a machine's folder knows of its project: which file it came from, and what that said of it then."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import files
from machine.paths import MachineFolder
from machine.project.steps import Probe, Step, step

FILE = "project.json"


@dataclass(frozen=True)
class Record:
    """options, steps, probes: as the file had them at the last `up`.

    done, booted: when each step has run, by its digest: in the machine's life, and since it booted. probed: which
    probes have succeeded since then.
    """

    file: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    probes: tuple[Probe, ...] = ()
    done: dict[str, str] = field(default_factory=dict)
    booted: dict[str, str] = field(default_factory=dict)
    probed: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the file that it came from exists still: where it doesn't, its folder was moved."""
        return bool(self.file) and Path(self.file).is_file()


def read(folder: MachineFolder) -> Record:
    """An empty one where there is none, or where it can't be understood: `up` writes it anew."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        data["steps"] = tuple(map(step, data.get("steps", ())))
        data["probes"] = tuple(Probe(**probe) for probe in data.get("probes", ()))
        return Record(**data)
    return Record()


def write(folder: MachineFolder, record: Record) -> None:
    files.write(folder / FILE, json.dumps(dataclasses.asdict(record), indent=2) + "\n")

"""What `machine doctor` says: one finding for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """check: what was looked at, or a machine's name. hint: what mends it, as a rule a command."""

    check: str
    level: Level
    text: str
    hint: str = ""
    repair: Callable[[], None] | None = None

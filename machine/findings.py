"""What the checks of `machine doctor` find."""

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
    """The result of one check.

    check: the check's name, or a machine's. hint: what helps, as a rule a command. repair: does it, if that is safe.
    """

    check: str
    level: Level
    text: str
    hint: str = ""
    repair: Callable[[], None] | None = None

"""The driver's own settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    privileged: bool = field(
        default=False,
        metadata={"help": "No user namespace: root in the machine is root of this computer."},
    )

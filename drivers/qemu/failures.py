"""Templates that failed, remembered so that not every create tries again what fails.

    <store>/templates/.KEY.failed     what failed, why and when; KEY is the recipe's

Another image, QEMU or setting is another recipe, and so another KEY. Another version of machine, a day, and
`machine template rm KEY` make a failure forgotten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import machine
from machine import files

LASTS = timedelta(days=1)
# A host that is out of memory ends QEMU, too: a template is given up when it failed so many times in a row.
LOADS = 3
_SUFFIX = ".failed"


@dataclass(frozen=True)
class Failure:
    """at: in ISO 8601. loads: how often in a row no clone of it came up; 0 when it couldn't be made."""

    key: str
    recipe: dict[str, Any]
    reason: str
    at: str
    version: str
    loads: int = 0

    @property
    def counts(self) -> bool:
        """Whether the template isn't to be tried for now."""
        return self.is_recent and self.is_final

    @property
    def is_final(self) -> bool:
        return self.loads == 0 or self.loads >= LOADS

    @property
    def is_recent(self) -> bool:
        age = datetime.now(UTC) - datetime.fromisoformat(self.at)
        return self.version == machine.__version__ and timedelta() <= age < LASTS


def find(folder: Path, key: str) -> Failure | None:
    """What is remembered of a template in that folder."""
    try:
        found = Failure(**json.loads(_file(folder, key).read_text(encoding="utf-8")))
        found.is_recent  # noqa: B018 - raises where `at` is no time
    except (OSError, ValueError, TypeError):
        return None
    return found


def all_of(folder: Path) -> Iterator[Failure]:
    for path in sorted(folder.glob(f".*{_SUFFIX}")):
        if failure := find(folder, path.name.removeprefix(".").removesuffix(_SUFFIX)):
            yield failure


def remember(folder: Path, key: str, recipe: dict[str, Any], reason: str) -> None:
    """The template couldn't be made."""
    _write(folder, key, recipe, reason, loads=0)


def count_load(folder: Path, key: str, recipe: dict[str, Any], reason: str) -> None:
    """QEMU couldn't load the template, or its guest took no identity, though its files are as they were."""
    before = find(folder, key)
    _write(folder, key, recipe, reason, loads=(before.loads if before and before.is_recent else 0) + 1)


def forget(folder: Path, key: str) -> None:
    files.remove(_file(folder, key))


def _write(folder: Path, key: str, recipe: dict[str, Any], reason: str, *, loads: int) -> None:
    for old in list(all_of(folder)):
        if not old.is_recent:
            forget(folder, old.key)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    failure = Failure(key, recipe, reason, at, machine.__version__, loads)
    with contextlib.suppress(OSError):  # a full disk, which may be why it failed
        files.write(_file(folder, key), json.dumps(asdict(failure), indent=2) + "\n")


def _file(folder: Path, key: str) -> Path:
    return folder / f".{key}{_SUFFIX}"

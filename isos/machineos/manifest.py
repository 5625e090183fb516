"""Describes what an image was made of; lies beside the ISO as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Manifest:
    """architecture: x86_64 or aarch64; packages: name -> version; sha256: of the ISO; size: of the ISO in bytes."""

    architecture: str
    version: str
    kernel: str
    packages: dict[str, str]
    sha256: str
    size: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

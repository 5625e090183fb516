"""Archives as `export` writes them, taken apart and put together again with something else in them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Crafted:
    """about.json, and the files after it; sums.json is made of these when it is written."""

    about: dict[str, Any]
    files: dict[str, bytes]
    # What a member is, other than a plain file of its size: its header is given to the function.
    headers: dict[str, Callable[[tarfile.TarInfo], None]] = field(default_factory=dict)
    twice: tuple[str, ...] = ()

    def machine(self, **fields: object) -> None:
        self.about["machine"] |= fields

    def options(self, **options: object) -> None:
        self.about["machine"]["options"] |= options

    def raw(self) -> bytes:
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        members = [("about.json", json.dumps(self.about).encode()), *self.files.items()]
        members += [(name, self.files[name]) for name in self.twice]
        return tar([*members, ("sums.json", json.dumps(sums).encode())], self.headers)


def apart(raw: bytes) -> Crafted:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        files = {entry.name: content(archive, entry) for entry in archive}
    files.pop("sums.json")
    return Crafted(json.loads(files.pop("about.json")), files)


def content(archive: tarfile.TarFile, entry: str | tarfile.TarInfo) -> bytes:
    """What a plain file of the archive holds."""
    file = archive.extractfile(entry)
    assert file, f"{entry} is no file"
    return file.read()


def tar(
    members: list[tuple[str, bytes]],
    headers: Mapping[str, Callable[[tarfile.TarInfo], None]],
    format: int | None = None,
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT if format is None else format) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if name in headers:
                headers[name](entry)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()

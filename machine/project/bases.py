"""A file together with what it is based on: another file, or one behind a URL with its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from machine import files, paths
from machine.errors import CheckFailed, MachineError
from machine.project.values import Mistakes, Value, merged, read
from machine.reasons import reason

# Bytes. A file that is fetched is as large at most.
_LIMIT = 1 << 20


def whole(file: Path, mistakes: Mistakes) -> Value:
    """The file's values merged into those of its bases. Raises CheckFailed for what can't be read."""
    return _based(_read(file), file, [file.resolve()], mistakes)


def _based(value: Value, file: Path | None, seen: list[Path], mistakes: Mistakes) -> Value:
    """file: None for one that was fetched."""
    base = value.get("base")
    if base is None or not isinstance(base.data, str):
        return value
    if "://" in base.data:
        return _on_fetched(value, base, seen, mistakes)
    if file is None:
        mistakes.add(base.place, "base: a file that was fetched can't name another one by its path")
        return value
    path = file.parent / paths.expanded(base.data)
    if path.resolve() in seen:
        mistakes.add(base.place, f"base: {base.data} is based on this file")
        return value
    if not path.is_file():
        mistakes.add(base.place, f"base: there is no file {path}")
        return value
    return merged(_based(_read(path), path, [*seen, path.resolve()], mistakes), value)


def _on_fetched(value: Value, base: Value, seen: list[Path], mistakes: Mistakes) -> Value:
    try:
        text = _fetched(str(base.data))
    except MachineError as error:
        mistakes.add(base.place, f"base: {error.message}")
        return value
    below = read(text, str(base.data).partition("#")[0].rpartition("/")[2])
    return merged(_based(below, None, seen, mistakes), value)


def _fetched(text: str) -> str:
    """What the URL has, or the store since it was fetched. Raises MachineError."""
    from machine.images import downloads

    source = downloads.source(text)
    if source.algorithm != "sha256":
        raise CheckFailed("the digest must be a sha256")
    kept = paths.store() / "bases" / source.digest
    if kept.is_file() and _digest(found := kept.read_text(encoding="utf-8")) == source.digest:
        return found
    found = downloads.text(source.url, _LIMIT)
    if (digest := _digest(found)) != source.digest:
        raise CheckFailed(f"{source.url} has another digest: sha256={digest}")
    files.make_folder(kept.parent)
    files.write(kept, found)
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(file: Path) -> Value:
    try:
        return read(files.read_text(file), file.name)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckFailed(f"{file} can't be read: {reason(error)}", hint="machine init") from error

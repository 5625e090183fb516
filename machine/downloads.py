"""Fetching an image over HTTP: a download that breaks goes on where it stopped, and counts only with its digest.

urllib (30 ms) is imported when something is fetched; it takes the proxies of the environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from machine import files, locks
from machine.errors import ImageCorrupt, MachineError, Usage
from machine.reasons import reason

# Seconds without a byte, after which a connection counts as broken; and how often it is made again without progress.
SILENCE = 30.0
ATTEMPTS = 5
# How long another command that fetches the same may stand still: while it checks and copies what it has fetched, say.
STANDSTILL = 600.0
PAUSE = 1.0
_BLOCK = 1 << 18
_LENGTH = {"sha256": 64, "sha512": 128}
Say = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Source:
    """A URL, and the digest that what lies there must have: algorithm is sha256 or sha512, digest hexadecimal."""

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2] or "image"


def source(text: str) -> Source:
    """`URL#sha256=…` or `URL#sha512=…`. Raises Usage: nothing is fetched without a digest."""
    url, _, fragment = text.partition("#")
    algorithm, _, digest = fragment.partition("=")
    if not re.match(r"(https?|file)://", url):
        raise Usage(f'invalid URL "{url}"', hint="use http://, https:// or file://")
    if not re.fullmatch(r"[0-9a-fA-F]+", digest) or _LENGTH.get(algorithm) != len(digest):
        raise Usage(
            f"the URL has no digest: {url}",
            hint=f"add the digest that its publisher states, sha256 or sha512: --image '{url}#sha256=…'",
        )
    return Source(url, algorithm, digest.lower())


@contextlib.contextmanager
def fetched(wanted: Source, folder: Path, say: Say, note: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """The file, whose digest is right, for as long as the block lasts. say is told the bytes there are, of how many.

    What was fetched before a failure stays in folder, and is gone on from. note is told when another command fetches
    the same. Raises ImageCorrupt, MachineError, WaitTimeout when that one doesn't get on.
    """
    files.make_folder(folder)
    part = folder / f".part-{hashlib.sha256(f'{wanted.url} {wanted.digest}'.encode()).hexdigest()[:24]}"
    what = f"another command to fetch {wanted.name}"
    with locks.held(part.with_suffix(".lock"), what=what, timeout=STANDSTILL, say=note, sign=lambda: _size(part)):
        resumed = part.exists()
        _complete(wanted, part, say)
        if _digest(part, wanted.algorithm) != wanted.digest and resumed:
            # What was there may have been of another version: once more, from the beginning.
            part.unlink()
            _complete(wanted, part, say)
        if (found := _digest(part, wanted.algorithm)) != wanted.digest:
            part.unlink()
            raise ImageCorrupt(
                f"{wanted.url} has another digest than was said: {wanted.algorithm}={found}",
                hint="see what its publisher says; it may be a newer one, or not what it should be",
            )
        yield part
        part.unlink(missing_ok=True)
    part.with_suffix(".lock").unlink(missing_ok=True)


def left_over(folder: Path) -> list[Path]:
    """Downloads that were broken off."""
    return [path for path in folder.glob(".part-*") if path.suffix != ".lock"]


def _complete(wanted: Source, part: Path, say: Say) -> None:
    from http.client import HTTPException

    failures = 0
    while True:
        before = _size(part)
        try:
            if _fetch(wanted.url, part, say):
                return
            why = "the connection ended too early"
        except (OSError, HTTPException) as error:
            if not _is_passing(error):
                raise MachineError(f"{wanted.url} can't be fetched: {reason(error)}", hint="see the address") from error
            why = reason(error)
        failures = 0 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise MachineError(f"{wanted.url} can't be fetched: {why}", hint="try again: it goes on where it stopped")
        time.sleep(PAUSE * failures)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _fetch(url: str, part: Path, say: Say) -> bool:
    """Fetch the rest; True when all is there."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have and url.startswith("http") else {})
    try:
        answer = urlopen(request, timeout=SILENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return True  # nothing comes after what is there
        raise
    with answer:
        goes_on = getattr(answer, "status", None) == 206
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if not part.exists():
            part.touch(mode=0o600)
        with part.open("ab" if goes_on else "wb") as out:
            have = _copy(answer, out, have, total, say)
    return total is None or have >= total


def _copy(source: IO[bytes], out: IO[bytes], have: int, total: int | None, say: Say) -> int:
    while block := source.read(_BLOCK):
        out.write(block)
        have += len(block)
        say(have, total)
    return have


def _is_passing(error: Exception) -> bool:
    """Whether the same may go well in a moment: a broken connection, a busy server; not a wrong address."""
    code = getattr(error, "code", None)
    return code is None or code >= 500 or code in {408, 425, 429}


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()

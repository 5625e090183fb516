"""Downloads of images over HTTP. An interrupted one continues where it stopped; the digest is checked at the end.

urllib takes 30 ms to import, so it is imported for a download only; it uses the proxies of the environment.
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
from machine.progress import Progress
from machine.reasons import reason
from machine.resources import human

# A connection counts as broken after so many seconds without a byte; without progress it is retried so many times.
SILENCE = 30.0
ATTEMPTS = 5
# Seconds that another command may take over the same download without a new byte, while it checks and copies, say.
STANDSTILL = 600.0
PAUSE = 1.0
# Seconds between two reports of a download's progress.
_TELL = 2.0
_BLOCK = 1 << 18
_LENGTH = {"sha256": 64, "sha512": 128}
Say = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Source:
    """A URL, and the digest that its content must have: algorithm is sha256 or sha512, digest hexadecimal."""

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2] or "image"


def source(text: str) -> Source:
    """Parse `URL#sha256=…` or `URL#sha512=…`. Raises Usage: nothing is downloaded without a digest."""
    url, _, fragment = text.partition("#")
    algorithm, _, digest = fragment.partition("=")
    check_url(url)
    if not re.fullmatch(r"[0-9a-fA-F]+", digest) or _LENGTH.get(algorithm) != len(digest):
        raise Usage(
            f"the URL has no digest: {url}",
            hint=f"add the digest that its publisher states, sha256 or sha512: --image '{url}#sha256=…'",
        )
    return Source(url, algorithm, digest.lower())


def check_url(url: str) -> str:
    """The URL. Raises Usage where it is none that files can be downloaded from."""
    if not re.match(r"(https?|file)://", url):
        raise Usage(f'invalid URL "{url}"', hint="use http://, https:// or file://")
    return url


def text(url: str, limit: int) -> str:
    """A short text, of at most limit bytes. Raises MachineError."""
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=SILENCE) as answer:
            return bytes(answer.read(limit)).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise MachineError(f"{url} can't be downloaded: {reason(error)}", hint="check the address") from error


@contextlib.contextmanager
def fetched(wanted: Source, folder: Path, say: Say, note: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """Download a file and check its digest; the file lasts as long as the block.

    say(received, total) is called after each block, in bytes; total is None when the server doesn't say it. After a
    failure the part stays in folder, and the next call continues it. note is called when another command downloads the
    same. Raises ImageCorrupt, MachineError, and WaitTimeout when the other command makes no progress.
    """
    files.make_folder(folder)
    part = folder / f".part-{hashlib.sha256(f'{wanted.url} {wanted.digest}'.encode()).hexdigest()[:24]}"
    what = f"another command to download {wanted.name}"
    with locks.held(part.with_suffix(".lock"), what=what, timeout=STANDSTILL, say=note, sign=lambda: _size(part)):
        resumed = part.exists()
        _complete(wanted, part, say)
        if _digest(part, wanted.algorithm) != wanted.digest and resumed:
            # The part may have been of another version: download once more, from the beginning.
            part.unlink()
            _complete(wanted, part, say)
        if (found := _digest(part, wanted.algorithm)) != wanted.digest:
            part.unlink()
            raise ImageCorrupt(
                f"{wanted.url} has another digest than expected: {wanted.algorithm}={found}",
                hint="compare it with its publisher's: there may be a newer version, or the file was changed",
            )
        yield part
        part.unlink(missing_ok=True)
    part.with_suffix(".lock").unlink(missing_ok=True)


def teller(name: str, progress: Progress) -> Say:
    """What tells of a download's progress, every few seconds."""
    begun = told = time.monotonic()
    first: int | None = None

    def say(have: int, total: int | None) -> None:
        nonlocal told, first
        first = have if first is None else first
        now = time.monotonic()
        if now - told < _TELL and have != total:
            return
        told = now
        speed = (have - first) / max(now - begun, 0.001) / (1 << 20)
        part = f"{100 * have // total} % of {human(max(1, total >> 20))}" if total else human(max(1, have >> 20))
        progress.advance(f"downloading {name}: {part}, {speed:.1f} MiB/s")

    return say


def left_over(folder: Path) -> list[Path]:
    """The parts of interrupted downloads."""
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
                raise MachineError(
                    f"{wanted.url} can't be downloaded: {reason(error)}", hint="check the address"
                ) from error
            why = reason(error)
        failures = 0 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise MachineError(
                f"{wanted.url} can't be downloaded: {why}", hint="try again: it continues where it stopped"
            )
        time.sleep(PAUSE * failures)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _fetch(url: str, part: Path, say: Say) -> bool:
    """Download the rest; True when the file is complete."""
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
    """Whether a retry may succeed: after a broken connection or a busy server, not with a wrong address."""
    code = getattr(error, "code", None)
    return code is None or code >= 500 or code in {408, 425, 429}


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()

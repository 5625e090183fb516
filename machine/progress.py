"""What a command shows while it works: on stderr, so that stdout holds results only.

On a terminal each machine has a line with a spinner and the seconds gone by (rich); elsewhere each phase is one plain
line, printed when it begins, with the seconds since the command began: a hanging CI job shows where it hangs. How far
a phase is, is a line every ten seconds there, so that a log stays readable.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

# Seconds between two lines that say how far a phase is, where there is no terminal.
INTERVAL = 10.0

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


class Progress(Protocol):
    """The progress of one machine."""

    def phase(self, what: str) -> None:
        """Something new begins; what says it in a few words, as in "waiting for Docker"."""

    def advance(self, text: str) -> None:
        """How far the phase is, as often as one likes: "uploading the image: 12 %"."""

    def note(self, text: str) -> None:
        """Something that the user should know, and that isn't an error."""


class Silent:
    def phase(self, what: str) -> None: ...
    def advance(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...


class Plain:
    """began: time.monotonic() of the command's start."""

    def __init__(self, name: str, began: float) -> None:
        self.name = name
        self.began = began
        self.current = ""
        self.printed = began

    def phase(self, what: str) -> None:
        if what != self.current:
            self.current = what
            self._print(what)

    def advance(self, text: str) -> None:
        if time.monotonic() - self.printed >= INTERVAL:
            self._print(text)

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def _print(self, text: str) -> None:
        self.printed = time.monotonic()
        print(f"[{self.printed - self.began:5.1f} s] {self.name}: {text}", file=sys.stderr, flush=True)


class Bar:
    """A line of a rich progress display, which several machines share."""

    def __init__(self, name: str, bars: Bars) -> None:
        self.name = name
        self.bars = bars
        self.task = bars.add_task(f"{name}: …", total=None)

    def phase(self, what: str) -> None:
        self.bars.update(self.task, description=f"{self.name}: {what}")

    advance = phase

    def note(self, text: str) -> None:
        self.bars.console.print(f"{self.name}: {text}", markup=False, highlight=False)

    def remove(self) -> None:
        self.bars.remove_task(self.task)


class Display:
    """Makes the Progress of each machine that a command works on; a context manager that ends the display."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.began = time.monotonic()
        self.bars: Bars | None = None
        self.lock = threading.Lock()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    @contextmanager
    def of(self, name: str) -> Iterator[Progress]:
        """The progress of one machine, while the work on it lasts."""
        if self.quiet:
            yield Silent()
            return
        if not sys.stderr.isatty():
            yield Plain(name, self.began)
            return
        with self.lock:
            self.bars = self.bars or _start_bars()
        bar = Bar(name, self.bars)
        try:
            yield bar
        finally:
            bar.remove()


def _start_bars() -> Bars:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    # rich prints what goes to stdout above the bars, on stderr: `machine start > FILE` would leave FILE empty.
    above = sys.stdout is not None and sys.stdout.isatty()
    bars = Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above)
    bars.start()
    return bars

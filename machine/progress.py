"""The progress of a command, on stderr, so that stdout has results only.

On a terminal each machine has a line with a spinner and the elapsed seconds (rich). Elsewhere each phase prints one
plain line when it begins, with the seconds since the command began, so that a hanging CI job shows where it hangs.
There, a long phase prints its percentage every ten seconds, so that a log stays readable.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

# Seconds between two lines about a long phase, without a terminal.
INTERVAL = 10.0

if TYPE_CHECKING:
    from rich.progress import Progress as Bars


class Progress(Protocol):
    """The progress of one machine."""

    def phase(self, what: str) -> None:
        """A new phase begins; what names it in a few words, as in "waiting for Docker"."""

    def advance(self, text: str) -> None:
        """How far the phase is, for example "uploading the image: 12 %". May be called often."""

    def note(self, text: str) -> None:
        """Tell the user something that is no error."""


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
        # In one piece: other machines' threads print at the same time.
        line = f"[{self.printed - self.began:5.1f} s] {self.name}: {text}\n"
        print(line, end="", file=sys.stderr, flush=True)


class Bar:
    """One machine's line in the display that all machines share."""

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
        """The progress of one machine during the block."""
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
    # rich would print stdout's lines above the bars, on stderr: `machine start > FILE` would leave FILE empty.
    above = sys.stdout is not None and sys.stdout.isatty()
    bars = Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above)
    bars.start()
    return bars

"""A sequence of steps on an existing host, which an error needs: the failed step, and the steps before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from machine.errors import MachineError
from machine.progress import Progress


class Steps:
    """Shows each step as it begins, and remembers the changes."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.changed: list[str] = []

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Raises what the block raises, with the step in the message and the earlier changes in the details."""
        self.progress.phase(what)
        try:
            yield
        except MachineError as error:
            error.message = f"{what} failed: {error.message}"
            error.args = (error.message,)
            done = [f"done before: {change}" for change in self.changed] or ["nothing was changed before"]
            error.details = "\n".join(filter(None, [error.details, *done]))
            error.hint = error.hint or "remove the cause and repeat the command: it skips finished steps"
            raise

    def did(self, what: str) -> None:
        self.changed.append(what)

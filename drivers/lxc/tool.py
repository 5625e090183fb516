"""LXC's programs: one method for each thing that they do for us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machine.driver import State
from machine.errors import DriverFailed
from machine.run import Run

from . import layout

# Seconds: a question, and an order that the kernel carries out.
SHORT, LONG = 30.0, 120.0
# lxc-info(1). A frozen machine goes on where it stopped, which is what SAVED promises.
_STATES = {
    "STOPPED": State.STOPPED,
    "STARTING": State.STARTING,
    "RUNNING": State.RUNNING,
    "STOPPING": State.STOPPING,
    "ABORTING": State.STOPPING,
    "FREEZING": State.SAVED,
    "FROZEN": State.SAVED,
    "THAWED": State.RUNNING,
}


@dataclass(frozen=True)
class LxcTool:
    """name: of the container."""

    run: Run
    name: str

    def state(self) -> State:
        """Raises ToolMissing, ToolFailed."""
        if not (layout.CONTAINERS / self.name).exists():
            return State.STOPPED
        word = self._call("lxc-info", "-s", "-H").strip()
        return _STATES.get(word, State.ERROR)

    def process(self) -> int:
        """The process id of the container's init. Raises DriverFailed where it has none."""
        word = self._call("lxc-info", "-p", "-H").strip()
        if not word.isdigit():
            raise DriverFailed("the container doesn't run")
        return int(word)

    def power_off(self) -> None:
        """Tell its init to shut down; returns at once."""
        self._call("lxc-stop", "--nokill", "--nowait", check=False)

    def kill(self) -> None:
        self._call("lxc-stop", "--kill", check=False, timeout=LONG)

    def freeze(self) -> None:
        self._call("lxc-freeze", timeout=LONG)

    def unfreeze(self) -> None:
        self._call("lxc-unfreeze", timeout=LONG)

    def limit(self, key: str, value: str) -> None:
        """Set a control group's file of the container that runs: memory.max. Raises ToolFailed."""
        self._call("lxc-cgroup", key, value)

    def _call(self, tool: str, *words: str, check: bool = True, timeout: float = SHORT) -> str:
        argv: Sequence[str | Path] = [tool, "-P", layout.CONTAINERS, "-n", self.name, *words]
        return self.run(argv, check=check, timeout=timeout).stdout

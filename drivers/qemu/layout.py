"""How a running QEMU is laid out: memory that was saved, in a snapshot or not, loads only into one laid out alike.

The next start may be laid out otherwise: after `set` or an upgrade, or as a clone that got its memory plugged in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from . import sizes
from .argv import Memory
from .qmp import Qmp
from .vm import Vm


@dataclass(frozen=True)
class Layout:
    """base_mib: the memory that it started with; more_mib: what was plugged in since; reporting: see argv.Memory.

    image: the digest of what it has booted, "" for a disk that boots by itself. An upgrade gives the next QEMU another,
    and a guest would find other files under those that it has open.
    """

    base_mib: int
    more_mib: int
    reporting: bool
    cpus: int
    image: str = ""

    @classmethod
    def read(cls, monitor: Qmp) -> Self:
        """Ask a running QEMU. Raises DriverFailed."""
        return cls(
            base_mib=sizes.base_mib(monitor),
            more_mib=sizes.more_mib(monitor),
            reporting=monitor.execute("qom-get", path="/machine/peripheral/balloon", property="free-page-reporting"),
            cpus=len(monitor.execute("query-cpus-fast")),
            image=_image(monitor),
        )

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Make it from what was written as JSON. Raises TypeError and KeyError for anything else."""
        base_mib, more_mib, reporting, cpus = (data[name] for name in ("base_mib", "more_mib", "reporting", "cpus"))
        return cls(base_mib, more_mib, reporting, cpus, data.get("image") or "")

    def apply(self, vm: Vm) -> Vm:
        """The same virtual machine with the processors and the image of this layout."""
        return replace(vm, machine=replace(vm.machine, cpus=self.cpus, image=self.image or vm.machine.image))

    @property
    def memory(self) -> Memory:
        return Memory(self.base_mib, reporting=self.reporting)

    @contextmanager
    def launch(self, vm: Vm, *, incoming: bool = False, paused: bool = False) -> Iterator[Qmp]:
        """Start a QEMU that memory can be loaded into; gives its monitor. It is ended when the block fails."""
        self.apply(vm).launch(self.memory, incoming=incoming, paused=paused)
        try:
            with vm.monitor() as monitor:
                sizes.plug(monitor, self.more_mib)
                yield monitor
        except BaseException:
            vm.end()
            raise


def _image(monitor: Qmp) -> str:
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    return next((Path(node["file"]).parent.name for node in nodes if node.get("node-name") == "root"), "")

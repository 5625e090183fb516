"""One container: what LXC is told of it, its process, its network, and what is cleared after it.

The driver and its parts (snapshots, sizes) work with this object; it knows none of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from machine import files, wait
from machine.driver import Machine, State
from machine.errors import DriverFailed, NoSuchImage, ToolFailed, WaitTimeout
from machine.folders import mount_spec
from machine.guest import seed
from machine.network import addresses
from machine.paths import Image, MachineFolder, same
from machine.reasons import reason
from machine.render import render
from machine.run import Run
from machine.usernet import GUEST

from . import binds, disk, launch, limits, mounts, roots
from . import layout as layouts
from .binds import Bind
from .launch import Plan
from .layout import DISK, IDS, Layout
from .options import Options
from .slirp4netns import Slirp4netns
from .tool import LxcTool

BRINGER, CARD = "machine.drivers.lxc.bring", "machine.drivers.lxc.tap"
# Seconds. A container that was killed gives its memory back.
END, DHCP, SHORT = 30.0, 10.0, 30.0
_OLD_IMAGE = "the image may be of an earlier version, without networks: machine iso build"
SECCOMP = Path("/usr/share/lxc/config/common.seccomp")
LXCFS = Path("/var/lib/lxcfs")
# What lxcfs shows by the container's limits in place of the host's.
_LIMITED = ("meminfo", "cpuinfo", "stat", "uptime", "swaps", "diskstats", "loadavg")
# systemd gives ids up to 1879048191 to its own containers, and nobody those that follow, until 2147483647. Imports have
# the last range.
_FIRST_ID, LAST_ID = 0x70000000, 0x7FFF0000


@dataclass(frozen=True)
class Container:
    """run: starts programs. say: told what the user should know."""

    machine: Machine
    folder: MachineFolder
    run: Run
    say: Callable[[str], None]

    @property
    def options(self) -> Options:
        return Options(privileged=bool(self.machine.options.get("privileged")))

    @property
    def layout(self) -> Layout:
        return Layout(self.machine.uuid)

    @property
    def tool(self) -> LxcTool:
        return LxcTool(self.run, self.machine.uuid)

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    def forwards(self) -> Slirp4netns:
        assert self.machine.address is not None
        return Slirp4netns(self.layout.network_socket, self.machine.address)

    def state(self) -> State:
        """Raises DriverFailed where a copy of this folder runs, MachineError."""
        if not self.machine.uuid or (state := self.tool.state()) is State.STOPPED:
            return State.STOPPED
        if self._is_a_copys():
            there = self.layout.machine
            raise DriverFailed(
                f"the machine runs from {os.path.realpath(there)}, and this folder is a copy of that one",
                hint=f"remove the copy: machine rm -f {self.folder.name}",
            )
        return state

    def start(self) -> None:
        """Start the container; its Docker and SSH are forwarded when this returns. Raises MachineError, OSError."""
        self.clear()
        self.await_release()
        self._rotate_console()
        try:
            with _ids_locked():
                self._prepare()
            self._launch()
            self._await_address(GUEST)
            if (lan := addresses.card(addresses.CARD, self.machine)).address:
                address = lan.address.partition("/")[0]
                if not self._await_address(address):
                    self.say(f"it isn't reached by other machines at {address}: {_OLD_IMAGE}")
            self.forwards().open_own()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the container and remove what is left of it. Succeeds when there is none, or another folder's."""
        if not self.machine.uuid or self._is_a_copys():
            return
        if self.layout.folder.exists():
            self.tool.kill()
        self.clear()

    def _is_a_copys(self) -> bool:
        """Whether the container is that of another folder, of which this is a copy. One that is gone was moved here."""
        there = self.layout.machine
        return there.exists() and not same(there, self.folder.path)

    def clear(self) -> None:
        """Remove what a container has left that doesn't run: its network, its control groups, its folder below /run."""
        with contextlib.suppress(OSError, ValueError):
            self._end_network(int(self.layout.network_pid.read_text(encoding="ascii")))
        for group in limits.groups(self.machine.uuid):
            _remove_group(group)
        limits.drop_shared()
        shutil.rmtree(self.layout.folder, ignore_errors=True)

    def update_folders(self) -> None:
        """Bring the machine's folders to a container that runs, and take others away. Raises DriverFailed."""
        plan = launch.read(self.layout)
        dataclasses.replace(plan, binds=self._binds()).write(self.layout)
        argv = [sys.executable, "-m", BRINGER, self.machine.uuid, str(self._monitor())]
        try:
            self.run(argv, timeout=SHORT)
        except ToolFailed as error:
            raise DriverFailed("a folder can't be brought to the machine", details=error.stderr) from error

    def _binds(self) -> tuple[Bind, ...]:
        found = (binds.of(mount_spec.parse(text), self.folder.store) for text in self.machine.mounts)
        return tuple(filter(None, found))

    def _monitor(self) -> int:
        """The process id of LXC's own process, the parent of the container's init."""
        stat = Path(f"/proc/{self.tool.process()}/stat").read_text(encoding="ascii")
        return int(stat.rpartition(")")[2].split()[1])

    def inside(self) -> list[str]:
        """The beginning of a command that sees the mounts of LXC's own process, the container's disk among them.

        Raises DriverFailed when the container doesn't run.
        """
        return ["nsenter", f"--target={self._monitor()}", "--mount", "--"]

    def await_release(self) -> None:
        """Wait until nothing has the disk: the mounts of a container that was killed end a moment after it."""
        for device in disk.devices(self.disk, self.run):
            disk.detach(device, self.run)  # where we were killed between attaching and mounting it
        wait.until(
            lambda: not disk.devices(self.disk, self.run),
            timeout=END,
            what=f"the earlier container to release {self.disk}",
        )

    def diagnosis(self) -> str:
        """See driver.Driver."""
        text = f"LXC says: {self.state()}"
        with contextlib.suppress(OSError):
            if lines := self.layout.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]:
                text += "".join(f"\nlxc: {line}" for line in lines)
        return text

    def _prepare(self) -> None:
        """Write below /run what `launch` and LXC need."""
        image, layout = Image(self.machine.image), self.layout
        check_image(image)
        first_id = None if self.options.privileged else _free_ids()
        if roots.is_due(image.unpacked, launch.ids_from(first_id)):
            self.say("unpacking the image, once: it takes some seconds and 300 MB")
        layout.folder.mkdir(mode=0o711)
        layout.machine.symlink_to(self.folder.path.absolute())
        # LXC appends to it, as root.
        self.folder.console.touch(mode=0o600)
        self._write_seed()
        plan = Plan(
            str(image.file),
            int(image.root_offset.read_text(encoding="ascii")),
            str(image.unpacked),
            str(self.disk),
            first_id,
            self.machine.memory_mib,
            self._binds(),
        )
        plan.write(layout)
        config = render(
            "lxc/config.j2",
            layout=layout,
            hostname=self.machine.name,
            first_id=first_id,
            ids=IDS,
            seccomp=SECCOMP if SECCOMP.exists() else None,
            lxcfs=[f"proc/{name}" for name in _LIMITED if (LXCFS / "proc" / name).exists()],
            limits=limits.of(self.machine).items(),
        )
        files.write(layout.config, config, durable=False)
        lan = shlex.join([sys.executable, "-m", CARD]) if self.machine.network else ""
        hook = render("lxc/network.sh.j2", layout=layout, lan=lan)
        files.write(layout.folder / "network", hook, 0o700, durable=False)

    def _write_seed(self) -> None:
        """The seed's part for machineos, as a folder."""
        for name, text in seed.read(self.folder.seed).items():
            folder, _, file = name.partition("/")
            if folder == "machineos":
                path = self.layout.seed / file
                files.make_folder(path.parent)
                files.write(path, text, durable=False)

    def _launch(self) -> None:
        try:
            mounts.apart(lambda: launch.launch(self.layout))
        except (ToolFailed, OSError) as error:
            details = error.details if isinstance(error, ToolFailed) else ""
            raise DriverFailed(reason(error), details=details, hint="machine doctor") from error

    def _await_address(self, address: str) -> bool:
        """Wait until the guest has it: what is sent to it before is lost, and who sent it waits for seconds."""
        routes = Path(f"/proc/{self.tool.process()}/net/fib_trie")
        with contextlib.suppress(WaitTimeout, OSError):  # its state tells what happened
            return wait.until(
                lambda: address in routes.read_text(encoding="ascii").split(),
                timeout=DHCP,
                what="the container's address",
            )
        return False

    def _end_network(self, pid: int) -> None:
        """End slirp4netns, which the container's own hook ends only when LXC was not killed."""
        if str(self.layout.network_socket).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)

    def _rotate_console(self) -> None:
        if self.folder.console.exists():
            self.folder.console.replace(self.folder.console.with_suffix(".log.1"))


def check_image(image: Image) -> None:
    """Raise NoSuchImage unless it can be the root of a container."""
    if not image.file.exists():
        raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint="machine iso build")
    if not image.root_offset.exists():
        raise NoSuchImage(
            f"the image {image.digest[:12]} can't run in a system container: it is another system, or older than these",
            hint="machine iso build",
        )


@contextlib.contextmanager
def _ids_locked() -> Iterator[None]:
    """Hold the lock of all containers' ids while one takes some; held for moments."""
    layouts.CONTAINERS.mkdir(mode=0o711, exist_ok=True)
    with (layouts.CONTAINERS / ".lock").open("ab") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def _free_ids() -> int:
    """The first of IDS ids that no other container has."""
    used = {layout.first_id() for layout in layouts.containers()}
    found = next((first for first in range(_FIRST_ID, LAST_ID, IDS) if first not in used), None)
    if found is None:
        raise DriverFailed("no user ids are free for another container", hint="machine ls")
    return found


def _remove_group(group: Path) -> None:
    """Remove a control group and those below it, whose processes may still be ending. What doesn't go, stays."""
    deadline = time.monotonic() + END
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            folder.rmdir()
    while time.monotonic() < deadline:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)

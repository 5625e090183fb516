"""A store of its own, the real command line and docker client on it, and what is left of it on this host."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import psutil

from tests.testbed.commands import COMMAND, CREATE, Begun, Done, Options, environment, execute, say
from tests.testbed.host import listening

# A store begins so.
ODD = "m ü,'[$%&;] "


class Store:
    """A folder for machines. Its path is short, because sockets lie in it, and odd: each program must take it."""

    def __init__(self, images: Path, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix=ODD, dir="/tmp"))
        self.env = environment(
            MACHINE_STORAGE_PATH=str(self.folder),
            MACHINE_IMAGES_PATH=str(images),
            DOCKER_CONFIG=f"{self.folder}/docker",
        )
        self.addresses: set[str] = set()

    def folder_of(self, name: str) -> Path:
        return self.folder / "machines" / name

    def machine(self, *words: str | Path, **options: Unpack[Options]) -> Done:
        """Run the command line; options as for `execute`."""
        timeout = CREATE if words[0] in {"create", "start", "restart"} else COMMAND
        options.setdefault("env", self.env)
        options.setdefault("timeout", timeout)
        return execute(self.argv(*words), **options)

    def argv(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "machine", *map(str, words)]

    @contextlib.contextmanager
    def begun(self, *words: str) -> Iterator[Begun]:
        """The command line at work, in a process group of its own, as a job of a shell; killed at the end."""
        begun = Begun(self.argv(*words), self.env)
        try:
            yield begun
        finally:
            begun.close()

    def create(self, name: str, *options: str) -> Done:
        say(f"machine create {' '.join(options)} {name}")
        done = self.machine("create", *options, name)
        say(f"{name} was made in {done.seconds:.0f} s")
        self.note(name)
        return done

    def note(self, name: str) -> str:
        """Remember the machine's address, so that what is left on it is found later."""
        address = json.loads((self.folder_of(name) / "machine.json").read_text())["address"]["host"]
        self.addresses.add(address)
        return str(address)

    def docker_env(self, name: str) -> dict[str, str]:
        """The environment of a bash that has evaluated what `machine env` printed."""
        command = f'eval "$("{sys.executable}" -m machine env --shell bash {name})" && env -0'
        done = execute(["bash", "-c", command], env=self.env)
        return dict(item.split("=", 1) for item in done.out.split("\0") if item)

    def consoles(self) -> list[Path]:
        """What the guests wrote, in this run and in the one before."""
        return sorted(self.folder.glob("machines/*/console.log*"))

    def processes(self) -> list[psutil.Process]:
        """Every process that has a path of this store in its command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def qemu(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.folder_of(name) / "qemu.pid").read_text()))

    def left_over(self) -> list[str]:
        """What is left of machines: processes, folders, ports. Templates and certificates belong to the store."""
        folders = [path for path in (self.folder / "machines").glob("*") if path.name != ".lock"]
        processes = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it ends at this moment
                processes.append(f"{process.pid} {' '.join(process.cmdline())[:150]}")
        return [*processes, *map(str, folders), *(f"{ip}:{port}" for ip, port in listening() if ip in self.addresses)]

    def assert_nothing_left(self) -> None:
        # The helper that forwards ports ends by itself when its QEMU has, and the last thread of that closes its ports.
        deadline = time.monotonic() + 20
        while left := self.left_over():
            assert time.monotonic() < deadline, f"this is left: {left}"
            time.sleep(0.1)

    def close(self) -> None:
        """Remove all machines by the command line, see that nothing is left, and remove the folder."""
        try:
            names = self.machine("ls", "-q").lines
            if names:
                self.machine("rm", "-y", *names)
            self.assert_nothing_left()
        finally:
            for process in self.processes():
                process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

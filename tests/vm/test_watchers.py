"""A container's inotify tells of what is changed on the host in a folder that it binds."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.testbed import until
from tests.vm.conftest import Docker, Vm

SOURCE = Path(__file__).with_name("inotify_events.c")
# Seconds; in software emulation on a busy host each change takes a quarter of one.
SOON = 120.0


@dataclass
class Watcher:
    """A container with the shared folder as /src: what inotify tells of paths in it, but of the folder itself."""

    docker: Docker
    name: str
    folder: Path
    follows: int = 0

    def lines(self) -> list[str]:
        lines = self.docker("logs", self.name).out.splitlines()
        return [line for line in lines if line != "ready" and not line.startswith(". ")]

    def hears(self, *lines: str) -> None:
        until(lambda: set(lines) <= set(self.lines()), f"{lines}", SOON)

    def is_reached(self) -> None:
        """Wait until what the host does is heard of."""
        self.follows += 1
        sign = self.folder / f"sign{self.follows}"

        def heard() -> bool:
            sign.write_text("text")
            return f". {sign.name} " in self.docker("logs", self.name).out

        until(heard, "the host to be heard of", SOON)
        sign.unlink()


@pytest.fixture
def project(host_folder: Path) -> Iterator[Path]:
    folder = host_folder / "project"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "file").write_text("text\n")
    (folder / "sub/unseen").write_text("text\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def program(host_folder: Path) -> Path:
    gcc = shutil.which("gcc")
    assert gcc, "no gcc here"
    out = host_folder / "inotify_events"
    subprocess.run([gcc, "-static", "-O2", SOURCE, "-o", out], check=True)
    return out


@pytest.fixture
def watcher(docker: Docker, host_folder: Path, name: str, program: Path) -> Callable[..., Watcher]:
    def begin(*paths: str) -> Watcher:
        bind = ("-v", f"{host_folder}:/src", "-w", "/src")
        docker("run", "-d", "--name", name, *bind, "busybox", f"/src/{program.name}", ".", *paths)
        made = Watcher(docker, name, host_folder)
        until(lambda: "ready" in docker("logs", name).out, "the container to watch", SOON)
        made.is_reached()
        return made

    return begin


def test_what_the_host_does(project: Path, docker: Docker, watcher: Callable[..., Watcher]) -> None:
    events = watcher("project", "project/sub", "project/file")

    def does(action: Callable[[], object], *lines: str) -> None:
        action()
        events.hears(*lines)

    does(lambda: (project / "file").write_text("more\n"), "project file MODIFY", "project file CLOSE_WRITE")
    does(lambda: (project / "sub/unseen").write_text("more\n"), "project/sub unseen MODIFY")
    does(lambda: (project / "new").write_text("text\n"), "project new CREATE")
    does(lambda: (project / "folder").mkdir(), "project folder CREATE")
    does(lambda: (project / "link").symlink_to("file"), "project link CREATE")
    does(lambda: (project / "sub/unseen").unlink(), "project/sub unseen DELETE")
    does(lambda: (project / "folder").rmdir(), "project folder DELETE")
    does(lambda: shutil.rmtree(project / "sub/deep"), "project/sub deep DELETE")
    does(lambda: (project / "new").rename(project / "moved"), "project new DELETE", "project moved CREATE")
    replaced = ("project/file - DELETE_SELF", "project file DELETE", "project file CREATE", "project moved DELETE")
    does(lambda: (project / "moved").rename(project / "file"), *replaced)
    assert docker("exec", events.name, "cat", "/src/project/file").out == "text\n"
    does(lambda: shutil.rmtree(project / "sub"), "project sub DELETE", "project/sub - DELETE_SELF")
    assert docker("exec", events.name, "ls", "/src/project").out == "file\nlink\n"


def test_what_the_container_does_is_heard_once(project: Path, docker: Docker, watcher: Callable[..., Watcher]) -> None:
    events = watcher("project")
    script = (
        "cd /src/project; i=0; while [ $i -lt 200 ]; do echo $i >f$i; i=$((i + 1)); done; mv f1 g1; rm f2; mkdir made"
    )
    docker("exec", events.name, "sh", "-c", script)
    (project / "last").touch()
    events.hears("project last CREATE")
    own = {f"project f{number} {what}" for number in range(200) for what in ("CREATE", "MODIFY", "CLOSE_WRITE")}
    own |= {"project f1 MOVED_FROM", "project g1 MOVED_TO", "project f2 DELETE", "project made CREATE"}
    assert sorted(events.lines()) == sorted([*own, "project last CREATE"])


def test_it_goes_on_without_the_helper_and_after_a_suspend(
    vm: Vm, project: Path, watcher: Callable[..., Watcher]
) -> None:
    """One program is left in the guest, and none when no container binds a folder."""
    events = watcher("project")
    for helper in vm.store.processes():
        if "machine.drivers.qemu" in helper.cmdline():
            helper.send_signal(signal.SIGKILL)
            helper.wait(60)
    vm.machine("status")
    events.is_reached()
    vm.machine("suspend")
    vm.machine("start")
    events.is_reached()
    (project / "file").unlink()
    events.hears("project file DELETE")
    until(lambda: len(programs(vm)) == 1, "the first programs to end", SOON)
    vm.docker("rm", "-f", events.name)
    until(lambda: programs(vm) == [], "the program to end", SOON)


def programs(vm: Vm) -> list[str]:
    return vm.ssh("pidof folder-events", code=None).out.split()

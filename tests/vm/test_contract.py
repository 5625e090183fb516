"""What every driver promises, on real machines: the same cases for each. They build on each other, in this order."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import registry
from machine.driver import Autostart, Snapshots, Suspend
from tests import testbed
from tests.testbed import until
from tests.testbed.places import PLACES, Place

WATCHER = Path(__file__).with_name("inotify_events.c")
DEV = "dev"
# Seconds, for something that takes a quarter of one in software emulation on a busy host.
SOON = 120.0
SIZE = ("--memory", "1G", "--cpus", "2", "--disk", "4G")


def marks(name: str) -> list[pytest.MarkDecorator]:
    """The other processors take minutes to emulate, and their machineos to build."""
    return [pytest.mark.slow, pytest.mark.timeout(3600)] if name == "qemu-arm" else []


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in PLACES])
def place(request: pytest.FixtureRequest, images: Path) -> Iterator[Place]:
    with PLACES[request.param](images) as place:
        if place.driver not in registry.names():
            pytest.skip(f"there is no driver {place.driver} here")
        yield place
        place.close()


@pytest.fixture(scope="module")
def shared(place: Place) -> Iterator[Path]:
    """A folder of this computer that the machine dev has, too."""
    folder = Path(tempfile.mkdtemp(prefix="m a b,ü", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "here").write_text("of this computer\n")
    place.give(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def made(place: Place, busybox_root: Path, shared: Path) -> Place:
    """The place with the machine dev, in whose Docker there are the image busybox and the volume keep."""
    testbed.say(f"creating a machine with {place.driver} {place.env.get('LIBVIRT_DEFAULT_URI', '')}")
    done = place.create(DEV, *SIZE, "--mount", str(shared))
    testbed.say(f"made in {done.seconds:.0f} s")
    archive = place.archive(DEV, busybox_root)
    place.docker(DEV, "import", "--change", 'CMD ["sh"]', "-", "busybox", input=archive)
    place.docker(DEV, "run", "--rm", "-v", "keep:/keep", "busybox", "sh", "-c", "echo one >/keep/it")
    return place


def kept(place: Place) -> str:
    return place.docker(DEV, "run", "--rm", "-v", "keep:/keep", "busybox", "cat", "/keep/it").out.strip()


def exchange(place: Place, shared: Path) -> None:
    """A container reads and writes files of this computer by the path that they have here."""
    there, back = (shlex.quote(f"{shared}/{name}") for name in ("here", "back"))
    script = f"cat {there} && echo of a container >{back}"
    (shared / "back").unlink(missing_ok=True)
    done = place.docker(DEV, "run", "--rm", "-v", f"{shared}:{shared}", "busybox", "sh", "-c", script)
    assert done.out == "of this computer\n"
    assert (shared / "back").read_text() == "of a container\n"
    assert (shared / "back").stat().st_uid == shared.stat().st_uid


def can(place: Place, capability: type) -> None:
    if not issubclass(registry.load(place.driver), capability):
        pytest.skip(f"the driver {place.driver} has no {capability.__name__}")


def state(place: Place) -> str:
    return place.machine("status", DEV).out.strip()


def test_a_failed_create_leaves_nothing(place: Place) -> None:
    ended = place.machine("create", *place.options, *SIZE, *place.doomed, DEV, code=1)
    assert place.why_doomed in ended.err
    if "timed out" in place.why_doomed:
        assert "console: " in ended.err or "says" in ended.err
    assert place.machine("ls", "-q").out == ""
    place.assert_nothing_left()
    assert place.left_outside() == []


def test_create_makes_a_docker_host(made: Place) -> None:
    [listed] = json.loads(made.machine("ls", "--json").out)
    assert (listed["name"], listed["driver"], listed["state"]) == (DEV, made.driver, "Running")
    assert made.machine("ssh", DEV, "hostname").out.strip() == DEV
    assert made.docker(DEV, "run", "--rm", "busybox", "uname", "-m").out.strip() == listed["arch"]
    assert kept(made) == "one"


def test_nobody_gets_in_without_a_certificate(made: Place) -> None:
    address = made.machine("url", DEV).out.strip()
    refused = made.execute("docker", "--host", address, "version", code=None)
    assert refused.code != 0
    refused = made.execute("docker", "--host", address, "--tls", "version", code=None)
    assert refused.code != 0


def test_a_container_has_files_of_this_computer(made: Place, shared: Path) -> None:
    exchange(made, shared)
    assert f"shared folder {shared}: mounted\n" in made.machine("status", DEV).err


def test_a_container_hears_of_what_this_computer_changes(made: Place, shared: Path) -> None:
    """inotify tells of it, as a watcher of files expects. The file is written until somebody watches."""
    gcc = shutil.which("gcc")
    assert gcc, "no gcc here"
    program = shared / WATCHER.stem
    subprocess.run([gcc, "-static", "-O2", WATCHER, "-o", program], check=True)
    name = made.docker(DEV, "run", "-d", "-v", f"{shared}:/src", "busybox", f"/src/{program.name}", "/src").out.strip()

    def heard() -> str:
        (shared / "sign").write_text("text")
        return made.docker(DEV, "logs", name).out

    until(lambda: "/src sign " in heard(), "the file to be heard of", SOON)
    (shared / "sign").unlink()
    until(lambda: "/src sign DELETE\n" in made.docker(DEV, "logs", name).out, "its removal", SOON)
    made.docker(DEV, "rm", "-f", name)


def test_a_published_port_is_reached_at_the_machines_address(made: Place, shared: Path) -> None:
    options = ("--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80")
    made.docker(DEV, "run", "-d", *options, "busybox", "httpd", "-f", "-h", "/etc")
    url, inside = (f"http://{made.machine('ip', DEV).out.strip()}:{port}/passwd" for port in (8080, 8081))
    until(lambda: "root" in made.execute("curl", "-s", "-m", "5", url, code=None).out, f"an answer of {url}")
    if made.env.get("LIBVIRT_DEFAULT_URI") == "qemu:///system":
        assert "8081/tcp is published inside of the machine only" in made.machine("status", DEV).err
    else:
        until(lambda: "root" in made.execute("curl", "-s", "-m", "20", inside, code=None).out, f"an answer of {inside}")
        assert made.machine("status", DEV).err == f"shared folder {shared}: mounted\n"
    made.docker(DEV, "rm", "-f", "web")
    until(lambda: made.execute("curl", "-s", "-m", "5", url, code=None).code, f"no answer of {url}")


def test_two_machines_reach_each_other_by_name(made: Place) -> None:
    if not registry.load(made.driver).networks:
        pytest.skip(f"the driver {made.driver} has no networks")
    made.create("other", *SIZE, "--mount", "none")
    try:
        network = json.loads(made.machine("network", "inspect", "machines").out)
        address = next(one["address"] for one in network["machines"] if one["name"] == "other")
        greeting = made.machine("ssh", DEV, "nc -w 30 other.machine.internal 22 </dev/null").out
        assert greeting.startswith("SSH-2.0")
        script = f"nslookup -type=a other; nc -w 30 {address} 22 </dev/null"
        in_container = made.docker(DEV, "run", "--rm", "busybox", "sh", "-c", script)
        assert f"Address: {address}" in in_container.out
        assert greeting in in_container.out
    finally:
        made.machine("rm", "-y", "-f", "other")


def test_starting_what_runs_changes_nothing(made: Place) -> None:
    assert "already running" in made.machine("start", DEV).out
    assert state(made) == "Running"


def test_suspend_and_resume(made: Place, shared: Path) -> None:
    can(made, Suspend)
    made.docker(DEV, "run", "-d", "--name", "counter", "busybox", "sh", "-c", "while sleep 1; do date; done")
    before = made.docker(DEV, "inspect", "-f", "{{.State.StartedAt}}", "counter").out
    assert "was suspended" in made.machine("suspend", DEV).out
    assert state(made) == "Saved"
    assert "already suspended" in made.machine("suspend", DEV).out
    assert "was resumed" in made.machine("resume", DEV).out
    assert state(made) == "Running"
    assert made.docker(DEV, "inspect", "-f", "{{.State.StartedAt}}", "counter").out == before
    guest = int(made.machine("ssh", DEV, "date", "+%s").out)
    assert abs(guest - time.time()) < 10
    exchange(made, shared)
    made.docker(DEV, "rm", "-f", "counter")


def test_a_snapshot_brings_back_memory_and_disk(made: Place) -> None:
    can(made, Snapshots)
    made.machine("snapshot", "create", DEV, "first")
    assert "already" in made.machine("snapshot", "create", DEV, "first", code=1).err
    made.docker(DEV, "run", "--rm", "-v", "keep:/keep", "busybox", "sh", "-c", "echo two >/keep/it; sync")
    assert kept(made) == "two"
    [listed] = json.loads(made.machine("snapshot", "ls", "--json", DEV).out)
    assert (listed["name"], listed["running"]) == ("first", True)
    made.machine("snapshot", "restore", DEV, "first")
    assert state(made) == "Running"
    assert kept(made) == "one"
    made.machine("snapshot", "rm", DEV, "first")
    assert made.machine("snapshot", "ls", "-q", DEV).out == ""
    assert "no snapshot" in made.machine("snapshot", "restore", DEV, "first", code=1).err


def test_autostart(made: Place) -> None:
    can(made, Autostart)
    assert made.machine("autostart", DEV).out == "off\n"
    made.machine("autostart", DEV, "on")
    assert made.machine("autostart", DEV).out == "on\n"
    made.machine("autostart", DEV, "off")
    assert made.machine("autostart", DEV).out == "off\n"


def test_a_restart_keeps_address_volumes_and_folders(made: Place, shared: Path) -> None:
    before = made.machine("env", "--shell", "bash", DEV).out
    # It starts with Docker, and mustn't see an empty folder then.
    script = "cp /src/here /src/copy && sleep 100000"
    early = ("-d", "--restart", "always", "--name", "early", "-v", f"{shared}:/src")
    made.docker(DEV, "run", *early, "busybox", "sh", "-c", script)
    until(lambda: (shared / "copy").exists(), "the container's copy")
    (shared / "copy").unlink()
    assert "was stopped" in made.machine("stop", DEV).out
    assert state(made) == "Stopped"
    assert made.machine("env", "--shell", "bash", DEV).out == before
    assert "already stopped" in made.machine("stop", DEV).out
    assert "was started" in made.machine("start", DEV).out
    assert made.machine("env", "--shell", "bash", DEV).out == before
    assert kept(made) == "one"
    exchange(made, shared)
    until(lambda: (shared / "copy").exists(), "the container's copy after the restart")
    made.docker(DEV, "rm", "-f", "early")


def test_the_console_is_kept(made: Place) -> None:
    """Of this run and of the one before; a clone has seen no boot, so a restart comes first."""
    assert "docker is ready" in made.machine("logs", DEV).out
    assert "good bye" in made.machine("logs", "--previous", DEV).out


def test_a_snapshot_of_a_stopped_machine_and_kill(made: Place) -> None:
    assert "was killed" in made.machine("kill", DEV).out
    assert state(made) == "Stopped"
    assert "already stopped" in made.machine("kill", DEV).out
    can(made, Snapshots)
    made.machine("snapshot", "create", DEV, "off")
    [listed] = json.loads(made.machine("snapshot", "ls", "--json", DEV).out)
    assert (listed["name"], listed["running"]) == ("off", False)
    made.machine("snapshot", "restore", DEV, "off")
    assert state(made) == "Stopped"


def test_rm_leaves_nothing(made: Place) -> None:
    assert "Successfully removed" in made.machine("rm", "-y", DEV).out
    assert made.machine("ls", "-q").out == ""
    made.assert_nothing_left()
    until(lambda: made.left_outside() == [], "the hypervisor to forget the machine", timeout=10)

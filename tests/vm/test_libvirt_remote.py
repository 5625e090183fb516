"""A machine on another host, whose libvirtd and Docker are reached through SSH; see the contract for the rest."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import testbed
from tests.testbed import until
from tests.testbed.places import RemotePlace, libvirt_remote

DEV = "dev"
SIZE = ("--memory", "1G", "--cpus", "2", "--disk", "4G")


@pytest.fixture(scope="module")
def place(images: Path) -> Iterator[RemotePlace]:
    with libvirt_remote(images) as place:
        yield place
        place.close()


@pytest.fixture(scope="module")
def made(place: RemotePlace, busybox_root: Path) -> RemotePlace:
    testbed.say("creating a machine on another host")
    done = place.create(DEV, *SIZE)
    testbed.say(f"made in {done.seconds:.0f} s")
    archive = subprocess.run(["tar", "-C", busybox_root, "-c", "."], capture_output=True, check=True).stdout
    place.docker(DEV, "import", "--change", 'CMD ["sh"]', "-", "busybox", input=archive)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


def read(place: RemotePlace, folder: Path, text: str) -> str:
    """What the container reads that this computer has just written."""
    (folder / text).write_text(f"{text}\n")
    return place.docker(DEV, "exec", "reader", "cat", f"/src/{text}").out


def helper(place: RemotePlace) -> psutil.Process:
    [found] = [process for process in place.processes() if "machine.drivers.libvirt" in process.cmdline()]
    return found


def test_it_is_reached_on_loopback(made: RemotePlace) -> None:
    assert made.machine("url", DEV).out.startswith("tcp://127.77.")
    assert made.docker(DEV, "run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    assert made.machine("ssh", DEV, "hostname").out.strip() == DEV


def test_the_console_is_fetched(made: RemotePlace) -> None:
    until(lambda: "docker is ready" in made.machine("logs", DEV).out, "the console", timeout=20)


def test_a_published_port_is_reached(made: RemotePlace) -> None:
    made.docker(DEV, "run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-h", "/etc")
    url = f"http://{made.machine('ip', DEV).out.strip()}:8080/passwd"
    until(lambda: "root" in made.execute("curl", "-s", "-m", "5", url, code=None).out, f"an answer of {url}")
    made.docker(DEV, "rm", "-f", "web")
    until(lambda: made.execute("curl", "-s", "-m", "5", url, code=None).code, f"no answer of {url}")


def test_a_folder_of_this_computer_goes_there_only_when_it_is_asked_for(made: RemotePlace, folder: Path) -> None:
    assert made.machine("mount", "ls", DEV).lines[1:] == []
    made.machine("mount", "add", DEV, str(folder))
    made.docker(DEV, "run", "-d", "--name", "reader", "-v", f"{folder}:/src", "busybox", "sleep", "100000")
    assert read(made, folder, "one") == "one\n"


def test_a_broken_tunnel_is_mended(made: RemotePlace) -> None:
    for process in made.processes():
        if "-M" in process.cmdline():
            process.terminate()
    until(lambda: made.docker(DEV, "version", code=None).code == 0, "Docker", timeout=30)


def test_a_helper_that_was_killed_is_started_by_the_next_command(made: RemotePlace, folder: Path) -> None:
    os.kill(helper(made).pid, signal.SIGKILL)
    assert made.machine("status", DEV).out == "Running\n"
    until(lambda: made.docker(DEV, "version", code=None).code == 0, "Docker", timeout=30)
    # What a container has open waits for the helper.
    assert read(made, folder, "two") == "two\n"
    made.docker(DEV, "rm", "-f", "reader")


def test_rm_leaves_nothing_on_either_host(made: RemotePlace) -> None:
    made.machine("rm", "-y", DEV)
    made.assert_nothing_left()
    assert made.left_outside() == []

"""Stop, start, restart and a QEMU that is killed: what was there before is there after."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import testbed
from tests.testbed import listening, taken, until
from tests.vm.conftest import Vm

KEEPER = "keeper"
# Seconds that it takes to end: more than the 10 that Docker gives, and the 15 that dockerd gives itself.
SLOW = 25


@pytest.fixture(scope="module")
def keeper(vm: Vm) -> Iterator[str]:
    """A container with a port and a volume, which Docker starts again."""
    bye = "read seconds </data/slow; echo 0 >/data/slow; sleep $seconds; echo bye >/data/bye; exit"
    script = f"cp /data/page /www/index.html; trap '{bye}' TERM; httpd -h /www; sleep 10000 & wait"
    prepare = f"echo lasting >/data/page; echo {SLOW} >/data/slow"
    vm.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", prepare)
    options = ("--restart=always", "--stop-timeout", "90", "-p", "8070:80", "-v", "data:/data", "--tmpfs", "/www")
    vm.docker("run", "-d", "--name", KEEPER, *options, "busybox", "sh", "-c", script)
    until(lambda: vm.curl(8070) == "lasting\n", "the published port", 20)
    yield KEEPER
    vm.docker("rm", "-f", KEEPER, code=None)
    vm.docker("volume", "rm", "data", code=None)


def test_stop(vm: Vm, keeper: str, tmp_path: Path) -> None:
    """By another way to the store: it is the same machine."""
    link = tmp_path / "link"
    link.symlink_to(vm.store.folder)
    env = vm.store.env
    for spelling in (f"{vm.store.folder}/", f"{tmp_path}/../{os.path.relpath(vm.store.folder, tmp_path.parent)}", link):
        env = {**vm.store.env, "MACHINE_STORAGE_PATH": str(spelling)}
        assert vm.machine("status", env=env).out == "Running\n"
        assert "already running" in vm.machine("start", env=env).out
    testbed.say("machine stop")
    done = vm.machine("stop", env=env)
    testbed.say(f"stopped in {done.seconds:.1f} s")
    assert "the container keeper may take up to 90 s" in done.err
    assert "was stopped" in done.out
    assert vm.machine("status").out == "Stopped\n"
    assert [line for line in vm.machine("logs", "-n", "5").lines if "good bye" in line or "Power down" in line]
    until(lambda: not [port for ip, port in listening() if ip == vm.address], "its ports to close", 10)
    assert "already stopped" in vm.machine("stop").out


def test_while_it_is_stopped(vm: Vm, keeper: str) -> None:
    assert vm.store.docker_env(vm.name)["DOCKER_HOST"] == vm.env["DOCKER_HOST"]
    [row] = json.loads(vm.store.machine("ls", "--json").out)
    assert (row["state"], row["docker"], row["error"]) == ("Stopped", None, None)
    assert "is not running" in vm.ssh("true", code=1).err
    assert vm.docker("version", code=1).err != ""


def test_start_where_another_program_has_the_port(vm: Vm, keeper: str) -> None:
    with taken(vm.address, 2375):
        refused = vm.machine("start", code=1)
    assert (
        f"port 2375, for Docker, can't be opened: another program of this host uses it on {vm.address}" in refused.err
    )
    assert "Traceback" not in refused.err
    assert vm.machine("status").out == "Stopped\n"


def test_start(vm: Vm, keeper: str) -> None:
    testbed.say("machine start")
    done = vm.machine("start")
    testbed.say(f"started in {done.seconds:.1f} s")
    assert vm.machine("ip").out.strip() == vm.address
    until(lambda: vm.curl(8070) == "lasting\n", "the container and its port", 60)
    # The signal reached the container when the machine was stopped.
    assert vm.docker("exec", keeper, "cat", "/data/bye").out == "bye\n"
    assert "already running" in vm.machine("start").out


def test_restart(vm: Vm, keeper: str) -> None:
    with vm.store.begun("logs", "-f", "-n", "0", vm.name) as follower:
        testbed.say("machine restart")
        done = vm.machine("restart")
        testbed.say(f"restarted in {done.seconds:.1f} s")
        until(lambda: "init is up" in follower.output(), "the console of the new run", 10)
    assert vm.docker("run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/page").out == "lasting\n"
    until(lambda: vm.curl(8070) == "lasting\n", "the container and its port", 60)
    assert "good bye" in vm.machine("logs", "--previous").out


def test_memory_of_an_ended_container_goes_back_to_the_host(vm: Vm, keeper: str) -> None:
    """It has booted by now: clones do this with QEMU 8.2 and later."""

    def pss() -> int:
        return int(vm.store.qemu(vm.name).memory_full_info().pss) >> 20

    fill = "dd if=/dev/zero of=/large/file bs=1M count=500 && sleep 1000"
    vm.docker("run", "-d", "--name", "large", "--tmpfs", "/large:size=600m", "busybox", "sh", "-c", fill)
    until(lambda: "500+0 records out" in vm.docker("logs", "large").err, "the container to use its memory", 90)
    used = pss()
    vm.docker("rm", "-f", "large")
    until(lambda: pss() < used - 350, "the host to get its memory back", 60)
    testbed.say(f"the host's memory (PSS): {used} MiB with the container, {pss()} MiB without")


def test_a_killed_qemu(vm: Vm, keeper: str) -> None:
    vm.ssh("sync")
    qemu = vm.store.qemu(vm.name)
    qemu.kill()
    until(lambda: vm.machine("status").out == "Stopped\n", "the machine to count as stopped", 10)
    [row] = json.loads(vm.store.machine("ls", "--json").out)
    assert (row["state"], row["error"]) == ("Stopped", None)
    helpers = [process for process in vm.store.processes() if "machine.drivers.qemu" in process.cmdline()]
    until(lambda: not any(helper.is_running() for helper in helpers), "the helper to end", 10)
    testbed.say("machine start")
    vm.machine("start")
    assert vm.ssh("true").code == 0
    until(lambda: vm.curl(8070) == "lasting\n", "the container and its port", 60)

"""A second machine beside the shared one; it speaks plain HTTP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests import testbed
from tests.testbed import environment, execute, listening
from tests.vm.conftest import Vm, vm_of

OPTIONS = ("--no-tls", "--cold", "--memory", "512", "--cpus", "1", "--disk", "2G", "--timeout", "500")


@pytest.fixture(scope="module")
def second(vm: Vm) -> Iterator[Vm]:
    """Made by one of two commands that were begun at once for the same name."""
    store = vm.store
    testbed.say("two times machine create second, at once")
    with store.begun("create", *OPTIONS, "second") as one, store.begun("create", *OPTIONS, "second") as other:
        ended = sorted((one.end(540), other.end(540)), key=lambda done: done.code)
    assert [done.code for done in ended] == [0, 1], ended
    assert 'Docker machine "second" already exists' in ended[1].err
    yield vm_of(store, "second")
    if (store.folder_of("second") / "machine.json").exists():
        store.machine("rm", "-y", "second")


def test_same_ports_on_another_address(vm: Vm, second: Vm) -> None:
    assert second.address != vm.address
    assert {(vm.address, 2375), (second.address, 2375)} <= listening()
    rows = json.loads(vm.store.machine("ls", "--json").out)
    assert [(row["name"], row["state"]) for row in rows] == [("default", "Running"), ("second", "Running")]
    names = {machine.docker("info", "--format", "{{.Name}}").out.strip() for machine in (vm, second)}
    assert names == {"default", "second"}


def test_identities_differ(vm: Vm, second: Vm) -> None:
    for command in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "cat /sys/class/net/eth0/address"):
        assert vm.ssh(command).out != second.ssh(command).out, command
    ids = {machine.docker("info", "--format", "{{.ID}}").out for machine in (vm, second)}
    assert len(ids) == 2


def test_without_tls(second: Vm) -> None:
    assert "DOCKER_TLS_VERIFY" not in second.env
    assert "DOCKER_CERT_PATH" not in second.env
    url = f"http://{second.address}:2375/_ping"
    assert execute(["curl", "-sS", "-m", "30", url], env=environment()).out == "OK"


def test_env_takes_back_the_variables_of_a_machine_with_tls(vm: Vm, second: Vm) -> None:
    script = 'eval "$("$0" -m machine env --shell bash second)" && docker info --format "{{.Name}}"; env'
    done = execute(["bash", "-c", script, vm.store.argv("env")[0]], env=vm.env)
    assert done.lines[0] == "second"
    assert "DOCKER_TLS_VERIFY" not in done.out


def test_without_tls_on_its_own_address_only(second: Vm) -> None:
    places = {ip for ip, port in listening() if port == 2375}
    assert second.address in places
    assert places.isdisjoint({"0.0.0.0", "127.0.0.1"})


def test_kill_and_start(second: Vm) -> None:
    """The plug is pulled; the file system of the data disk comes back with what had been written to it."""
    second.ssh("echo kept >kept && sync")
    assert "was killed" in second.machine("kill").out
    assert second.machine("status").out == "Stopped\n"
    testbed.say("machine start second")
    assert "was started" in second.machine("start").out
    assert second.ssh("cat", "kept").out == "kept\n"
    assert second.docker("version").code == 0


def test_a_recycled_process_number(second: Vm) -> None:
    """The pidfile of a machine that was killed names a process of somebody else by now."""
    second.machine("kill")
    pidfile = second.store.folder_of("second") / "qemu.pid"
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            pidfile.write_text(f"{stranger.pid}\n")
            assert second.machine("status").out == "Stopped\n"
            assert "already stopped" in second.machine("kill").out
            assert "already stopped" in second.machine("stop").out
            assert second.store.machine("rm", "-y", "second").code == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert not second.store.folder_of("second").exists()
    assert [port for ip, port in listening() if ip == second.address] == []
    assert [process for process in second.store.processes() if "/second/" in " ".join(process.cmdline())] == []

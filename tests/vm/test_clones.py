"""New machines are clones of a booted one: each must be a machine of its own, of the size that was asked for."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from machine.drivers.qemu.argv import AGENT
from machine.drivers.qemu.qmp import GuestAgent

from tests import testbed
from tests.testbed import Store, execute, until
from tests.vm.conftest import Vm, import_busybox, vm_of
from tests.vm.limits import different, in_container, limits

COUNT = 10
# What no two machines may have in common, and how a guest tells it.
IDENTITY = {
    "host name": "hostname",
    "machine-id": "cat /etc/machine-id",
    "host key": "cat /etc/ssh/ssh_host_ed25519_key.pub",
    "authorized key": "cat /etc/ssh/authorized_keys",
    "MAC": "cat /sys/class/net/eth0/address",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "disk's UUID": 'sudo blkid -s UUID -o value "$(sudo cat /run/machineos/data-disk)"',
    "random bytes": "head -c 16 /dev/urandom | md5sum",
    "engine's id": "docker info --format '{{.ID}}'",
    "certificate": "sudo md5sum /etc/docker/tls/server.pem",
    "certificate's key": "sudo md5sum /etc/docker/tls/server-key.pem",
}
SEPARATOR = "echo =-="

# What must go on when memory runs out.
PROTECTED = ("dockerd", "containerd", "containerd-shim-runc-v2", "sshd", "qemu-ga", "logger", "syslogd", "acpid")
SCORE = "set -- $(pidof {}); cat /proc/$1/oom_score_adj"
# An idle guest starts none by itself; to ask it takes a few, and so does the kernel with its workers.
FEW = 20


@pytest.fixture(scope="module")
def clones(images: Path) -> Iterator[list[Vm]]:
    store = Store(images)
    names = [f"c{number}" for number in range(1, COUNT + 1)]
    try:
        testbed.say(f"machine create c1 ... c{COUNT}: a template and its clones")
        # The first is larger than the template in every way, and above 1 GiB, where some limits take a step.
        done = store.machine("create", "--memory", "2G", "--disk", "24G", "--timeout", "500", "c1", timeout=900)
        assert "booting cold" not in done.err
        done = store.machine("create", "--memory", "512", "--timeout", "500", *names[1:], timeout=900)
        assert "booting cold" not in done.err
        yield [vm_of(store, name) for name in names]
    finally:
        store.close()


def test_no_value_twice(clones: list[Vm]) -> None:
    command = f"; {SEPARATOR}; ".join(IDENTITY.values())
    told = {vm.name: [part.strip() for part in vm.ssh(command).out.split("=-=")] for vm in clones}
    for number, what in enumerate(IDENTITY):
        values = [parts[number] for parts in told.values()]
        assert all(values), f"no {what}: {values}"
        assert len(set(values)) == COUNT, f"{what}: {values}"
    assert [parts[0] for parts in told.values()] == [vm.name for vm in clones]


def test_the_engine_keeps_its_new_id(clones: list[Vm]) -> None:
    vm = clones[1]
    before = vm.docker("info", "--format", "{{.ID}}").out
    vm.ssh("sudo kill $(cat /run/docker.pid)")
    until(lambda: vm.docker("info", "--format", "{{.ID}}", code=None).out.strip() != "", "dockerd", timeout=120)
    until(lambda: vm.docker("info", "--format", "{{.ID}}", code=None).out == before, "the same id", timeout=60)


def test_the_clock(clones: list[Vm]) -> None:
    """As the guest's agent tells it; what the question itself takes isn't the clock's.

    An idle host sets it within 100 ms; a busy one has been seen to need 110. A template is minutes old.
    """
    for vm in clones[:4]:
        samples = []
        with GuestAgent(vm.store.folder_of(vm.name) / AGENT) as agent:
            for _ in range(20):
                began = time.time()
                guest = agent.execute("guest-get-time") / 1e9
                ended = time.time()
                samples.append((ended - began, max(began - guest, guest - ended, 0)))
        # The quickest answer tells best.
        assert min(samples)[1] < 0.5, f"{vm.name}: {samples}"


def test_sizes(clones: list[Vm]) -> None:
    large, small = clones[0], clones[1]
    assert 1900 < int(large.ssh("free -m").lines[1].split()[1]) <= 2048
    assert 350 < int(small.ssh("free -m").lines[1].split()[1]) <= 512
    memory = {vm.name: int(vm.docker("info", "--format", "{{.MemTotal}}").out) >> 20 for vm in (large, small)}
    assert 1900 < memory["c1"] <= 2048
    assert memory["c2"] <= 512
    sizes = [int(vm.ssh("df -m /var/lib/docker").lines[-1].split()[-5]) for vm in (large, small)]
    assert 23000 < sizes[0] < 24576 < sizes[0] * 2
    assert 19000 < sizes[1] < 20480


def test_set_while_it_runs(clones: list[Vm]) -> None:
    vm = clones[1]
    done = vm.machine("set", "--memory", "1536", "--disk", "22G", "--cpus", "3")
    assert done.out == (
        'Machine "c2": Memory and disk changed now. Processors will change at the next start: machine restart c2\n'
    )
    assert 1400 < int(vm.ssh("free -m").lines[1].split()[1]) <= 1536
    assert int(vm.ssh("df -m /var/lib/docker").lines[-1].split()[-5]) > 21000
    about = json.loads(vm.machine("inspect").out)["Machine"]
    assert (about["memory_mib"], about["disk_mib"], about["cpus"]) == (1536, 22 * 1024, 3)
    # The limits have followed; that they are those of a machine that booted with this memory is shown below.
    told = limits(vm)
    assert told["net.netfilter.nf_conntrack_max"] == "65536"
    assert 11000 < int(told["kernel.threads-max"]) < 12288
    assert 650 << 10 < int(told["size of /dev/shm"]) <= 768 << 10


def test_a_snapshot_of_a_clone_whose_memory_was_plugged(clones: list[Vm]) -> None:
    vm = clones[1]
    vm.ssh("touch before")
    vm.store.machine("snapshot", "create", vm.name, "one")
    vm.ssh("touch after")
    vm.store.machine("snapshot", "restore", vm.name, "one", timeout=300)
    assert vm.ssh("ls").out.split() == ["before"]
    assert 1400 < int(vm.ssh("free -m").lines[1].split()[1]) <= 1536


def test_suspend_and_start(clones: list[Vm]) -> None:
    vm = clones[1]
    vm.machine("suspend")
    assert vm.machine("status").out == "Saved\n"
    refused = vm.machine("stop", code=1)
    assert "is suspended" in refused.err
    vm.machine("start", timeout=300)
    # Not as many processors as were asked for since: what was in memory goes on.
    assert vm.ssh("nproc; ls").out.split() == ["2", "before"]


def test_a_killed_command_or_host_costs_no_data(clones: list[Vm]) -> None:
    """The program is killed at the worst moments of suspend and start, and then QEMU as well."""
    vm = clones[2]
    path = "/mnt/data/written"
    write = f"sudo dd if=/dev/urandom of={path} bs=1M count=64 conv=fsync status=none; sudo sha256sum {path}"
    before = vm.ssh("cat /proc/sys/kernel/random/boot_id").out
    cuts = (("after", "migrate", "suspend"), ("before", "quit", "suspend"), ("before", "cont", "start"))
    for when, command, verb in cuts:
        if verb == "start":
            vm.machine("suspend")
        _cut_off(vm, when, command, verb)
        testbed.say(f"{verb} was killed {when} {command}: {vm.machine('status').out.strip()}")
        vm.machine("start", timeout=300)
        assert vm.ssh("cat /proc/sys/kernel/random/boot_id").out == before, "its memory was lost"
    vm.machine("suspend")
    _cut_off(vm, "after", "cont", "start")
    assert vm.machine("status").out == "Running\n"
    written = vm.ssh(write).out
    vm.store.qemu(vm.name).kill()
    until(lambda: vm.machine("status").out == "Stopped\n", "the machine to count as stopped", 10)
    assert "it is discarded, and the machine boots from its disk" in vm.machine("start", timeout=500).err
    assert vm.ssh("cat /proc/sys/kernel/random/boot_id").out != before
    assert vm.ssh(f"sudo sha256sum {path}").out == written
    assert vm.ssh("dmesg | grep -i 'ext4-fs error'; sudo rm -f", path, code=None).out == ""
    assert not [
        name for name in vm.store.folder_of(vm.name).glob("*") if "suspended" in name.name or "woken" in name.name
    ]


def test_space_of_removed_images_goes_back_to_the_host(clones: list[Vm], busybox_root: Path) -> None:
    vm = clones[3]
    import_busybox(vm, busybox_root)
    disk = vm.store.folder_of(vm.name) / "disk.qcow2"
    before = _taken(disk)
    vm.docker("run", "--name", "big", "busybox", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=200", timeout=300)
    vm.ssh("sync")
    assert _taken(disk) > before + 150
    vm.docker("rm", "big")
    vm.ssh("sync; sudo fstrim /mnt/data")
    until(lambda: _taken(disk) < before + 60, "the disk to shrink", timeout=60)


@pytest.mark.slow
def test_what_used_up_the_memory_is_killed_and_not_what_manages_it(clones: list[Vm], busybox_root: Path) -> None:
    """Each of many small programs is smaller than dockerd, which would be the first to go by its size.

    All of them end with the first that is killed: a guest that stays at the brink of its memory hardly gets on.
    """
    vm = clones[3]
    import_busybox(vm, busybox_root)
    kept = f"pidof {' '.join(PROTECTED)}"
    before = vm.ssh(kept).out
    fill = 'BEGIN { s = sprintf("%1024s", ""); while (length(s) < 16777216) s = s s; system("sleep 1000") }'
    script = f"for n in $(seq 24); do awk '{fill}' & done; while [ $(pidof awk | wc -w) = 24 ]; do sleep 1; done"
    vm.docker("run", "-d", "--name", "greedy", "busybox", "sh", "-c", script)
    vm.docker("wait", "greedy", timeout=300)
    vm.docker("rm", "greedy")
    assert vm.ssh(kept).out == before
    told = vm.machine("status").err
    assert "warning: its memory ran out: " in told
    assert "awk (" in told
    assert f"give it more: machine set --memory SIZE {vm.name}" in told
    rows = {row["name"]: row["warning"] for row in json.loads(vm.store.machine("ls", "--json").out)}
    assert "memory ran out" in rows[vm.name]
    assert rows["c2"] is None


@pytest.mark.slow
def test_what_users_start_has_no_part_in_the_protection(clones: list[Vm], busybox_root: Path) -> None:
    vm = clones[3]
    import_busybox(vm, busybox_root)
    score = "cat /proc/self/oom_score_adj"
    assert vm.ssh(score).out == "0\n"
    assert vm.docker("run", "-d", "--name", "quiet", "busybox", "sleep", "1000").code == 0
    assert vm.docker("run", "--rm", "busybox", *score.split()).out == "0\n"
    assert vm.docker("exec", "quiet", *score.split()).out == "0\n"
    scores = dict(zip(PROTECTED, vm.ssh("; ".join(map(SCORE.format, PROTECTED))).lines, strict=True))
    vm.docker("rm", "-f", "quiet")
    assert int(scores.pop("sshd")) == -1000
    assert all(-1000 < int(score) < 0 for score in scores.values()), scores


def test_a_stop_with_a_timeout_ends_in_time_and_in_order(clones: list[Vm], busybox_root: Path) -> None:
    vm = clones[5]
    import_busybox(vm, busybox_root)
    deaf = "trap '' TERM; while :; do sleep 1; done"
    vm.docker("run", "-d", "--stop-timeout", "600", "--name", "deaf", "busybox", "sh", "-c", deaf)
    done = vm.machine("stop", "--timeout", "30")
    assert "the container deaf may take up to 600 s, but --timeout allows 24 s" in done.err
    assert "was stopped" in done.out
    assert "good bye" in vm.machine("logs", "-n", "5").out


@dataclass
class Restarted:
    """A clone that was restarted, and so isn't one any more: its limits, and those in a container, as it was one."""

    vm: Vm
    limits: dict[str, str]
    contained: dict[str, str]


@pytest.fixture(scope="module")
def restarted(clones: list[Vm], busybox_root: Path) -> Restarted:
    vm = clones[0]
    import_busybox(vm, busybox_root)
    was = Restarted(vm, limits(vm), in_container(vm))
    assert processes_of_five_seconds(vm) < FEW
    vm.ssh("sudo sed -i 's/{/{\"live-restore\": true,/' /etc/docker/daemon.json && sudo killall -HUP dockerd")
    told = ["info", "--format", "{{.LiveRestoreEnabled}}"]
    until(lambda: vm.docker(*told).out == "true\n", "dockerd to keep containers", timeout=60)
    last = "trap 'echo bye >/kept/word; exit' TERM; sleep 1000 & wait"
    vm.docker("run", "-d", "-v", "kept:/kept", "busybox", "sh", "-c", last)
    testbed.say("machine restart c1: from now on it isn't a clone")
    vm.machine("restart", timeout=500)
    return was


def test_a_clone_has_the_limits_of_a_machine_that_booted_with_its_memory(restarted: Restarted) -> None:
    vm = restarted.vm
    booted, contained = limits(vm), in_container(vm)
    assert len(booted) > 1000
    assert different(restarted.limits, booted) == {}
    assert different(restarted.contained, contained) == {}
    told = (booted["dockerd: Max processes"], booted["containerd: Max processes"], contained["Max processes"])
    assert told == ("unlimited unlimited processes",) * 3


def test_an_idle_machine_that_booted_starts_no_processes(restarted: Restarted) -> None:
    assert processes_of_five_seconds(restarted.vm) < FEW


def test_containers_are_stopped_also_where_dockerd_would_leave_them_running(restarted: Restarted) -> None:
    assert restarted.vm.docker("run", "--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/word").out == "bye\n"


@pytest.mark.slow
def test_a_guest_that_reboots_by_itself_has_its_memory_and_limits_again(clones: list[Vm]) -> None:
    """Memory that was plugged in goes at a reset, and comes back when the guest's driver is loaded."""
    vm = clones[1]
    console = vm.store.folder_of(vm.name) / "console.log"
    written = console.stat().st_size
    vm.ssh("sudo reboot", code=None)
    until(lambda: b"docker is ready" in console.read_bytes()[written:], "the guest to boot", timeout=400)
    until(lambda: vm.ssh("true", code=None).code == 0, "SSH", timeout=60)
    until(lambda: int(limits(vm)["kernel.threads-max"]) > 11000, "its limits", timeout=60)


@pytest.mark.slow
def test_a_template_can_go_while_its_clones_live(clones: list[Vm]) -> None:
    vm = clones[4]
    store = vm.store
    keys = store.machine("template", "ls", "-q").lines
    assert len(keys) == 1
    for key in keys:
        assert store.machine("template", "rm", key).out == f"Removed the template {key}\n"
    assert store.machine("template", "ls", "-q").out == ""
    assert vm.docker("info", "--format", "{{.Name}}").out.strip() == vm.name
    vm.machine("restart", timeout=500)
    assert vm.docker("info", "--format", "{{.Name}}").out.strip() == vm.name


def _cut_off(vm: Vm, when: str, command: str, verb: str) -> None:
    """Run a verb in a process that gets SIGKILL when, "before" or "after", it gives QEMU that command."""
    script = """
import os, signal, sys
from machine.cli import main
from machine.drivers.qemu.qmp import Qmp
when, command, *sys.argv[1:] = sys.argv[1:]
execute = Qmp.execute
def cut_off(self, given, **arguments):
    if given == command and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = execute(self, given, **arguments)
    if given == command:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Qmp.execute = cut_off
main()
"""
    execute([sys.executable, "-c", script, when, command, verb, vm.name], env=vm.store.env, code=-signal.SIGKILL)


def processes_of_five_seconds(vm: Vm) -> int:
    """How many processes an idle guest starts, what asks included."""
    first, second = vm.ssh("grep processes /proc/stat; sleep 5; grep processes /proc/stat").lines
    return int(second.split()[1]) - int(first.split()[1])


def _taken(path: Path) -> int:
    """What a file takes of the disk, in MiB."""
    return path.stat().st_blocks * 512 >> 20

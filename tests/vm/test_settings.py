"""Settings of a machine at create, changed while it runs, refused, and after a restart: each is seen in the guest."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.docker import dockerd_options
from machine.docker.dockerd_options import OwnOption
from tests import testbed
from tests.testbed import Store, until
from tests.vm.conftest import Vm, import_busybox, vm_of

# An option of each kind, and what `docker info` has for it.
OPTIONS = {
    "log-driver=local": ("LoggingDriver", "local"),
    "experimental=1": ("ExperimentalBuild", True),
    "default-address-pool=base=10.201.0.0/16,size=24": ("DefaultAddressPools", [{"Base": "10.201.0.0/16", "Size": 24}]),
    "init": ("InitBinary", "docker-init"),
    "no-new-privileges": (
        "SecurityOptions",
        ["name=seccomp,profile=builtin", "name=cgroupns", "name=no-new-privileges"],
    ),
}
OTHERS = (
    "default-ulimit=nofile=1234:5678",
    "log-opt=max-size=5m",
    "dns=192.0.2.1",
    "default-network-opt=bridge=com.docker.network.driver.mtu=1234",
    "add-runtime=other=/usr/sbin/runc",
    "shutdown-timeout=7",
)
BOOT = "echo booted as $(id -un) >/var/lib/booted; docker ps -q | wc -l; echo trouble >&2; exit 3\n"


@pytest.fixture(scope="module")
def tuned(images: Path, busybox_root: Path) -> Iterator[Vm]:
    store = Store(images)
    try:
        options = [word for option in (*OPTIONS, *OTHERS) for word in ("--engine-opt", option)]
        store.create(
            "dev",
            *("--cold", "--memory", "768", "--disk", "4G", "--timeout", "500", "--engine-storage-driver", "vfs"),
            *("--engine-label", "stage=test", "--host", "one.test=192.0.2.1", "--sysctl", "vm.swappiness=35"),
            *options,
        )
        vm = vm_of(store, "dev")
        import_busybox(vm, busybox_root)
        yield vm
    finally:
        store.close()


def info(vm: Vm) -> dict[str, Any]:
    found = json.loads(vm.docker("info", "--format", "{{json .}}").out)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def container(tuned: Vm) -> tuple[str, str]:
    """A container that runs, and the process that it is."""
    tuned.docker("run", "-d", "--name", "box", "busybox", "sleep", "100000")
    return "box", tuned.docker("inspect", "-f", "{{.State.Pid}}", "box").out


def still_runs(tuned: Vm, container: tuple[str, str]) -> bool:
    return tuned.docker("inspect", "-f", "{{.State.Pid}}", container[0]).out == container[1]


def test_every_option_has_its_effect(tuned: Vm) -> None:
    found = info(tuned)
    assert found["Driver"] == "vfs"
    assert {key: found[key] for key, _ in OPTIONS.values()} == dict(OPTIONS.values())
    assert "other" in found["Runtimes"]
    script = "ulimit -n; ulimit -Hn; cat /etc/resolv.conf"
    shown = tuned.docker("run", "--rm", "busybox", "sh", "-c", script).out
    assert shown.split()[:2] == ["1234", "5678"]
    assert "nameserver 192.0.2.1" in shown
    assert tuned.docker(
        "inspect", "-f", "{{.HostConfig.LogConfig}}", tuned.docker("create", "busybox").out.strip()
    ).out == ("{local map[max-size:5m]}\n")
    tuned.docker("network", "create", "n")
    assert json.loads(tuned.docker("network", "inspect", "n").out)[0]["Options"] == {
        "com.docker.network.driver.mtu": "1234"
    }


def test_every_flag_of_dockerd_is_known(tuned: Vm) -> None:
    """dockerd itself reads a daemon.json with all of them that aren't the machine's own."""
    shown = tuned.ssh("dockerd --help").out
    flags = re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)(?: (\S+))?", shown, re.MULTILINE)
    assert len(flags) > 60
    config: dict[str, dockerd_options.Value] = {}
    for flag, kind in flags:
        with contextlib.suppress(OwnOption):
            dockerd_options.put(config, f"{flag}={SAMPLES.get(flag) or KINDS[kind]}" if kind else flag)
    tuned.ssh("cat >/tmp/all.json", input=json.dumps(config).encode())
    assert "configuration OK" in tuned.ssh("sudo dockerd --validate --config-file=/tmp/all.json 2>&1", code=None).lines


KINDS = {
    "string": "x",
    "int": "3",
    "list": "x",
    "ip": "192.0.2.1",
    "ipSlice": "192.0.2.1",
    "map": "a=b",
    "bytes": "64M",
}
SAMPLES = {
    "add-runtime": "other=/usr/sbin/runc",
    "bip": "10.9.0.1/24",
    # Not with the guest's cgroups.
    "cpu-rt-period": "0",
    "cpu-rt-runtime": "0",
    "default-address-pool": "base=10.0.0.0/8,size=24",
    "default-cgroupns-mode": "host",
    "default-gateway-v6": "2001:db8::1",
    "default-ipc-mode": "private",
    "default-network-opt": "bridge=a=b",
    "default-ulimit": "nofile=1:2",
    "dns-search": "example.test",
    "feature": "a=true",
    "fixed-cidr": "10.9.0.0/24",
    "fixed-cidr-v6": "2001:db8::/64",
    "insecure-registry": "r.test:5000",
    "label": "a=b",
    "log-format": "text",
    "log-level": "info",
    "node-generic-resource": "gpu=1",
    "registry-mirror": "http://r.test",
    "userland-proxy-path": "/usr/sbin/docker-proxy",
    "userns-remap": "root",
}


def test_host_names_and_kernel_settings(tuned: Vm) -> None:
    assert tuned.ssh("cat /proc/sys/vm/swappiness; grep one.test /etc/hosts").out == "35\n192.0.2.1 one.test\n"
    done = tuned.machine(
        *("set", "--host", "two.test=192.0.2.2", "--host-rm", "one.test", "--sysctl-rm", "vm.swappiness"),
        *("--sysctl", "net.ipv4.ip_local_port_range=20000 30000"),
    )
    assert done.out == 'Machine "dev": Host names and kernel settings changed now.\n'
    script = "cat /proc/sys/vm/swappiness /proc/sys/net/ipv4/ip_local_port_range; grep -h test /etc/hosts"
    assert tuned.ssh(script).out == "60\n20000\t30000\n192.0.2.2 two.test\n"
    refused = tuned.machine("set", "--sysctl", "vm.nosuch=1", "--host", "three.test=192.0.2.3", code=1)
    assert "the kernel refuses the setting: " in refused.err
    assert "vm" in refused.err
    assert tuned.ssh("grep -h test /etc/hosts").out == "192.0.2.2 two.test\n"
    assert json.loads(tuned.machine("inspect").out)["Machine"]["hosts"] == ["two.test=192.0.2.2"]


def test_what_can_be_reloaded_is(tuned: Vm, container: tuple[str, str]) -> None:
    pid = tuned.ssh("cat /run/docker.pid").out
    words = (
        "--engine-insecure-registry",
        "r.test:5000",
        "--engine-registry-mirror",
        "http://m.test",
        "--engine-label",
        "stage=2",
    )
    done = tuned.machine("set", *words)
    assert done.out == 'Machine "dev": Docker reloaded its settings.\n'
    found = info(tuned)
    assert sorted(found["Labels"]) == ["provider=qemu", "stage=2"]
    assert found["RegistryConfig"]["Mirrors"] == ["http://m.test/"]
    assert "r.test:5000" in found["RegistryConfig"]["IndexConfigs"]
    done = tuned.machine(
        "set", "--engine-registry-mirror-rm", "http://m.test", "--engine-insecure-registry-rm", "r.test:5000"
    )
    found = info(tuned)
    assert not found["RegistryConfig"]["Mirrors"]
    assert "r.test:5000" not in found["RegistryConfig"]["IndexConfigs"]
    assert tuned.ssh("cat /run/docker.pid").out == pid
    assert still_runs(tuned, container)


def test_containers_outlive_a_restart_of_docker(tuned: Vm, container: tuple[str, str]) -> None:
    done = tuned.machine(
        "set", "--engine-env", "HTTPS_PROXY=http://proxy.test:1", "--engine-opt", "log-driver=json-file"
    )
    testbed.say(f"Docker took a proxy in {done.seconds:.0f} s")
    assert "Docker was restarted with its new settings; containers kept running." in done.out
    found = info(tuned)
    assert (found["HttpsProxy"], found["LoggingDriver"]) == ("http://proxy.test:1", "json-file")
    assert found["LiveRestoreEnabled"] is False
    assert still_runs(tuned, container)
    # What was set is what the machine is to be: nothing is left to bring in line.
    dockerd = tuned.ssh("cat /run/docker.pid").out
    assert "nothing to change" in tuned.machine("provision").out
    assert tuned.ssh("cat /run/docker.pid").out == dockerd


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("nosuch=1", "the following directives don't match any configuration option: nosuch"),
        # Only starting tells this one.
        pytest.param("seccomp-profile=/nosuch", "seccomp profile (/nosuch)", marks=pytest.mark.slow),
    ],
)
def test_what_docker_refuses_is_taken_back(tuned: Vm, container: tuple[str, str], option: str, words: str) -> None:
    before = tuned.machine("inspect").out
    refused = tuned.machine("set", "--engine-opt", option, code=1)
    assert "dockerd refuses its settings: " in refused.err
    assert words in refused.err
    assert tuned.machine("inspect").out == before
    assert info(tuned)["LoggingDriver"] == "json-file"
    assert still_runs(tuned, container)


def test_containers_stop_only_when_it_is_said(tuned: Vm, container: tuple[str, str]) -> None:
    refused = tuned.machine("set", "--engine-opt-rm", "storage-driver", code=3)
    assert "Docker would have to stop its 1 running containers: they depend on its storage-driver" in refused.err
    assert still_runs(tuned, container)
    done = tuned.machine("set", "--force", "--engine-opt-rm", "storage-driver")
    assert "containers were stopped" in done.out
    assert info(tuned)["Driver"] == "overlay2"


def test_all_is_so_after_a_restart(tuned: Vm) -> None:
    tuned.ssh("cat >boot.sh", input=BOOT.encode())
    tuned.machine("set", "--sysctl", "vm.swappiness=20")
    tuned.machine("stop", timeout=300)
    done = tuned.machine("set", "--engine-label", "off=1", "--sysctl", "net.bridge.bridge-nf-call-arptables=0")
    assert "The settings take effect at the next start" in done.out
    tuned.machine("start")
    found = info(tuned)
    assert sorted(found["Labels"]) == ["off=1", "provider=qemu", "stage=2"]
    assert (found["HttpsProxy"], found["Driver"]) == ("http://proxy.test:1", "overlay2")
    script = "cat /proc/sys/vm/swappiness; grep -h test /etc/hosts; cat /proc/sys/net/bridge/bridge-nf-call-arptables"
    assert tuned.ssh(script).out == "20\n192.0.2.2 two.test\n0\n"
    until(lambda: "boot.sh failed" in tuned.machine("logs").out, "the end of boot.sh", 60)
    logs = tuned.machine("logs").out
    assert "boot.sh: trouble" in logs
    assert "warning: boot.sh failed with exit code 3" in logs
    status = tuned.machine("status")
    assert status.out == "Running\n"
    assert "warning: boot.sh failed with exit code 3\n" in status.err
    assert tuned.ssh("sudo cat /var/lib/booted").out == "booted as root\n"


@pytest.mark.slow
def test_create_tells_what_docker_refuses(images: Path) -> None:
    store = Store(images)
    try:
        refused = store.machine(
            "create", "--cold", "--memory", "512", "--cpus", "1", "--engine-opt", "nosuch=1", "bad", code=1
        )
        assert "dockerd refuses its settings: unable to configure the Docker daemon" in refused.err
        assert "nosuch" in refused.err
        store.assert_nothing_left()
    finally:
        store.close()

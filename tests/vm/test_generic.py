"""The driver generic on a real Debian server: systemd, OpenSSH, no Docker; packages come through its own apt."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine import ssh
from machine.spec import Address
from tests import testbed
from tests.testbed import Store, execute, until
from tests.vm import debian_guest
from tests.vm.debian_guest import BOOT, USER, Guest

# Seconds: apt fetches 70 MB and unpacks it under emulation.
INSTALL = 1500.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(BOOT + INSTALL + 300)]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    testbed.say("building the Debian guest, unless it is there")
    guest = debian_guest.boot(tmp_path_factory.mktemp("debian"))
    try:
        testbed.say("booting it")
        address = Address("127.0.0.1", ssh_port=guest.ssh_port)
        until(lambda: guest.process.poll() is not None or ssh.banner(address, 2), "the guest's SSH server", BOOT)
        assert guest.process.poll() is None, guest.console
        yield guest
    finally:
        guest.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, guest: Guest) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("images"))
    yield store
    store.close()


def words(guest: Guest) -> list[str]:
    found = ["--driver", "generic", "--generic-ip-address", "127.0.0.1", "--generic-ssh-user", USER]
    found += ["--generic-ssh-port", str(guest.ssh_port), "--generic-engine-port", str(guest.docker_port)]
    return [*found, "--generic-ssh-key", str(guest.key)]


def test_a_server_becomes_a_machine(guest: Guest, store: Store) -> None:
    assert guest.shell("command -v dockerd", code=None) == ""
    done = store.machine("create", *words(guest), "--engine-label", "stage=test", "far", timeout=INSTALL)
    testbed.say(f"Docker was installed and answered after {done.seconds:.0f} s")
    assert "note: installed Docker" in done.err
    env = store.docker_env("far")
    info = json.loads(execute(["docker", "info", "--format", "{{json .}}"], env=env).out)
    assert sorted(info["Labels"]) == ["provider=generic", "stage=test"]
    assert info["LiveRestoreEnabled"]
    assert info["OperatingSystem"].startswith("Debian")


def test_nobody_else_gets_in(guest: Guest, store: Store) -> None:
    url = f"https://127.0.0.1:{guest.docker_port}/_ping"
    done = execute(["curl", "-sk", "-m", "20", url], env=store.env, code=None)
    assert done.code != 0
    with socket.create_connection(("127.0.0.1", guest.docker_port), 20) as plain:
        plain.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert b"200 OK" not in plain.recv(1000)


def test_the_user_may_use_docker(guest: Guest, store: Store) -> None:
    assert store.machine("ssh", "far", "docker", "ps", "-q").out == ""
    assert store.machine("status", "far").out == "Running\n"
    assert store.machine("version", "far").out.strip()


def test_a_second_run_changes_nothing(guest: Guest, store: Store) -> None:
    began = guest.shell("systemctl show -p ExecMainStartTimestampMonotonic docker")
    done = store.machine("provision", "far")
    assert done.out == "far: there was nothing to change\n"
    assert guest.shell("systemctl show -p ExecMainStartTimestampMonotonic docker") == began


def test_new_certificates_leave_containers_alone(guest: Guest, store: Store, busybox_root: Path) -> None:
    env = store.docker_env("far")
    archive = execute(["tar", "-C", busybox_root, "-c", "-f", guest.folder / "root.tar", "."], env=env)
    assert archive.code == 0
    execute(["docker", "import", guest.folder / "root.tar", "busybox"], env=env)
    name = execute(["docker", "run", "-d", "busybox", "sleep", "3600"], env=env).out.strip()
    pid = execute(["docker", "inspect", "-f", "{{.State.Pid}}", name], env=env).out
    served = guest.shell("sudo sha256sum /etc/docker/tls/server.pem")
    store.machine("regenerate-certs", "-f", "far")
    assert guest.shell("sudo sha256sum /etc/docker/tls/server.pem") != served
    assert execute(["docker", "inspect", "-f", "{{.State.Pid}}", name], env=env).out == pid
    execute(["docker", "rm", "-f", name], env=env)


def test_settings_are_changed_under_containers(guest: Guest, store: Store) -> None:
    """The image is that of the test before."""
    env = store.docker_env("far")
    name = execute(["docker", "run", "-d", "busybox", "sleep", "3600"], env=env).out.strip()
    pid = execute(["docker", "inspect", "-f", "{{.State.Pid}}", name], env=env).out
    daemon = guest.shell("cat /run/docker.pid")
    words = ("--engine-label", "stage=2", "--host", "r.test=192.0.2.1", "--sysctl", "vm.swappiness=35")
    done = store.machine("set", *words, "far")
    assert "Host names and kernel settings changed now. Docker reloaded its settings." in done.out
    assert guest.shell("cat /run/docker.pid") == daemon
    assert guest.shell("cat /proc/sys/vm/swappiness; getent hosts r.test").split()[:2] == ["35", "192.0.2.1"]
    done = store.machine("set", "--engine-env", "HTTP_PROXY=http://proxy.test:1", "far")
    assert "Docker was restarted with its new settings; containers kept running." in done.out
    info = json.loads(execute(["docker", "info", "--format", "{{json .}}"], env=env).out)
    assert (info["HttpProxy"], sorted(info["Labels"])) == ("http://proxy.test:1", ["provider=generic", "stage=2"])
    refused = store.machine("set", "--engine-opt", "nosuch=1", "far", code=1)
    assert "the following directives don't match any configuration option: nosuch" in refused.err
    done = store.machine(
        "set", "--engine-label-rm", "stage", "--engine-env-rm", "HTTP_PROXY", "--host-rm", "r.test", "far"
    )
    info = json.loads(execute(["docker", "info", "--format", "{{json .}}"], env=env).out)
    assert (info["HttpProxy"], info["Labels"]) == ("", ["provider=generic"])
    assert execute(["docker", "inspect", "-f", "{{.State.Pid}}", name], env=env).out == pid
    assert store.machine("provision", "far").out == "far: there was nothing to change\n"
    execute(["docker", "rm", "-f", name], env=env)


def test_docker_comes_back_after_a_reboot(guest: Guest, store: Store) -> None:
    boot = guest.shell("cat /proc/sys/kernel/random/boot_id")
    guest.shell("sudo systemctl reboot", code=None)

    def is_up() -> bool:
        return guest.shell("cat /proc/sys/kernel/random/boot_id", code=None) not in {"", boot}

    until(is_up, "the guest after its reboot", BOOT)
    env = store.docker_env("far")
    until(lambda: execute(["docker", "version"], env=env, code=None).code == 0, "Docker after the reboot", BOOT)
    assert store.machine("provision", "far").out == "far: there was nothing to change\n"


def test_rm_leaves_the_server_as_it_is(guest: Guest, store: Store) -> None:
    store.machine("rm", "-y", "far")
    assert guest.shell("systemctl is-active docker") == "active\n"
    # And it can be taken again: nothing is installed a second time, and the new certificates are its new ones.
    done = store.machine("create", *words(guest), "again", timeout=600)
    assert "installed Docker" not in done.err
    assert store.machine("version", "again").out.strip()

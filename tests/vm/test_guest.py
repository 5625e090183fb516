"""The machine from within: what was asked for is there."""

from __future__ import annotations

import json
import ssl
import time
from datetime import datetime

import pytest

from tests import testbed
from tests.testbed import in_terminal
from tests.vm.conftest import Vm


def test_idle_memory(shared: Vm) -> None:
    """Its share of the host's memory, soon after it was made; TCG's translations count."""
    pss = shared.store.qemu(shared.name).memory_full_info().pss >> 20
    testbed.say(f"an idle machine of 1 GiB stands at {pss} MB (PSS)")
    assert pss < 1400


def test_the_iso_is_small_enough(shared: Vm) -> None:
    """Its bytes; a package index takes files of up to 100 MB, and Debian's updates make it larger."""
    [iso] = [
        image for image in json.loads(shared.store.machine("iso", "ls", "--json").out) if _is_newest(shared, image)
    ]
    testbed.say(f"the ISO has {iso['size'] / 1e6:.1f} MB")
    assert iso["size"] <= 90_000_000


def _is_newest(shared: Vm, image: dict[str, str]) -> bool:
    inspected = json.loads(shared.machine("inspect").out)
    return image["digest"] in json.dumps(inspected)


def test_info_tells_what_was_asked_for(shared: Vm) -> None:
    info = json.loads(shared.docker("info", "--format", "{{json .}}").out)
    assert info["Name"] == shared.name
    assert info["NCPU"] == 2
    assert 850 << 20 < info["MemTotal"] <= 1024 << 20
    assert {"provider=qemu", "stage=test"} <= set(info["Labels"])
    assert info["ExperimentalBuild"] is True
    assert info["HttpProxy"] == "http://proxy.invalid:3128"
    assert info["NoProxy"] == "10.0.2.2"
    [insecure] = [name for name in info["RegistryConfig"]["IndexConfigs"] if name.startswith("10.0.2.2:")]
    assert info["RegistryConfig"]["IndexConfigs"][insecure]["Secure"] is False
    assert info["RegistryConfig"]["Mirrors"] == [f"http://{insecure}/"]
    assert "machineos" in info["OperatingSystem"]


def test_memory_processors_and_disk(shared: Vm) -> None:
    script = "nproc; grep MemTotal /proc/meminfo; df -m /var/lib/docker | tail -n 1; hostname"
    processors, memory, disk, hostname = shared.ssh(script).lines
    assert processors == "2"
    assert 850 < int(memory.split()[1]) >> 10 <= 1024
    # ext4 keeps some of it for itself.
    assert 7400 < int(disk.split()[1]) <= 8192
    assert hostname == shared.name


def test_host_names_and_kernel_settings_of_a_clone(shared: Vm) -> None:
    shown = shared.ssh("cat /proc/sys/vm/swappiness; grep -h test /etc/hosts; grep -c localhost /etc/hosts").lines
    assert shown == ["35", "10.0.2.2 registry.test", "2"]


def test_clock(shared: Vm) -> None:
    before = time.time()
    told = shared.docker("info", "--format", "{{.SystemTime}}").out.strip()
    after = time.time()
    # Nanoseconds, of which Python takes microseconds.
    guest = datetime.fromisoformat(told[:26].rstrip("Z") + "+00:00").timestamp()
    testbed.say(f"the guest's clock is off by {guest - (before + after) / 2:+.3f} s ± {(after - before) / 2:.3f} s")
    assert before - 1 < guest < after + 1


def test_ssh_passes_exit_codes_and_input(shared: Vm) -> None:
    assert shared.ssh("true").code == 0
    assert shared.ssh("exit 3", code=3).out == ""
    assert shared.ssh("nosuchprogram", code=127).code == 127
    assert shared.ssh("cat", input=b"a\nb").out == "a\nb"
    assert shared.ssh("--", "echo", "-n", "x").out == "x"
    assert shared.ssh("sudo", "id", "-u").out == "0\n"


def test_ssh_has_a_terminal(shared: Vm) -> None:
    code, shown = in_terminal(shared.store.argv("ssh", shared.name), b"tty; exit 7\n", env=shared.store.env)
    assert code == 7
    assert "/dev/pts/" in shown


@pytest.mark.parametrize("name", ["docker.test", "localhost", "default", None])
def test_names_in_the_certificate(shared: Vm, name: str | None) -> None:
    _handshake(shared, name or shared.address)


def test_a_name_that_is_not_in_the_certificate(shared: Vm) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.test"):
        _handshake(shared, "other.test")


def _handshake(vm: Vm, name: str) -> None:
    import socket

    home = vm.store.folder_of(vm.name)
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.load_cert_chain(home / "cert.pem", home / "key.pem")
    with (
        socket.create_connection((vm.address, 2375), 60) as connection,
        context.wrap_socket(connection, server_hostname=name) as encrypted,
    ):
        assert encrypted.version() == "TLSv1.3"

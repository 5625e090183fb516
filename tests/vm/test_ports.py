"""Ports that containers publish appear on the machine's own address, under their own numbers."""

from __future__ import annotations

import socket
import time

import psutil

from tests.vm import testbed
from tests.vm.conftest import Vm
from tests.vm.testbed import listening, taken, until

# Promised is one second on a host that has nothing else to do.
APPEARS = 10.0


def serve(vm: Vm, name: str, *options: str) -> None:
    script = f"mkdir /www; echo {name} >/www/index.html; exec httpd -f -h /www"
    vm.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)


def test_tcp_comes_and_goes_with_the_container(vm: Vm, name: str) -> None:
    assert (vm.address, 8080) not in listening()
    serve(vm, name, "-p", "8080:80")
    seconds = until(lambda: vm.curl(8080) == f"{name}\n", "the published port", APPEARS)
    testbed.say(f"the published port answered {seconds:.2f} s after docker run -d")
    assert ("0.0.0.0", 8080) not in listening()
    vm.docker("rm", "-f", name)
    seconds = until(lambda: (vm.address, 8080) not in listening(), "the port to go", APPEARS)
    testbed.say(f"it went {seconds:.2f} s after docker rm -f")


def test_udp(vm: Vm, name: str) -> None:
    # Debian's busybox has no UDP server; the guest has socat.
    echo = ("/usr/bin/socat", "UDP-LISTEN:5353,fork", "PIPE")
    vm.docker("run", "-d", "--name", name, "-p", "5353:5353/udp", "-v", "/usr:/usr:ro", "busybox", *echo)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)

        def echoes() -> bool:
            client.sendto(b"ping", (vm.address, 5353))
            try:
                return client.recv(100) == b"ping"
            except OSError:
                return False

        seconds = until(echoes, "the echo", 30)
    testbed.say(f"the published UDP port answered after {seconds:.2f} s")


def test_a_port_that_the_host_has_is_a_warning(vm: Vm, name: str) -> None:
    with taken(vm.address, 8081):
        serve(vm, name, "-p", "8081:80", "-p", "8082:80")
        until(lambda: vm.curl(8082) == f"{name}\n", "the other port", APPEARS)
        until(lambda: "8081/tcp is published, but taken" in vm.machine("status").err, "the warning", APPEARS)
        assert vm.machine("status").out == "Running\n"
    vm.docker("rm", "-f", name)
    until(lambda: vm.machine("status").err == "", "the warning to go", APPEARS)


def test_many_at_once(vm: Vm, name: str) -> None:
    began = time.monotonic()
    serve(vm, name, "-p", "9000-9004:9000-9004")
    until(lambda: {(vm.address, port) for port in range(9000, 9005)} <= listening(), "five ports", APPEARS)
    testbed.say(f"five ports within {time.monotonic() - began:.1f} s of docker run")


def test_only_the_guest_sees_what_is_published_on_its_loopback(vm: Vm, name: str) -> None:
    serve(vm, name, "-p", "127.0.0.1:8083:80", "-p", "8084:80")
    until(lambda: vm.curl(8084) == f"{name}\n", "the other port", APPEARS)
    assert (vm.address, 8083) not in listening()
    assert vm.ssh("wget", "-q", "-O", "-", "http://127.0.0.1:8083/").out == f"{name}\n"


def test_the_helper_is_one_process_and_leaves_with_qemu(vm: Vm) -> None:
    helpers = [process for process in vm.store.processes() if "machine.drivers.qemu" in process.cmdline()]
    assert len(helpers) == 1
    assert isinstance(helpers[0], psutil.Process)
    assert helpers[0].memory_info().rss < 100 << 20

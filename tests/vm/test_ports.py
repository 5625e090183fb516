"""Ports that containers publish appear on the machine's own address, under their own numbers."""

from __future__ import annotations

import socket
import time
from functools import partial

import psutil

from tests import testbed
from tests.testbed import listening, taken, until
from tests.vm.conftest import Vm

# Promised is one second on a host that has nothing else to do.
APPEARS = 10.0


def serve(vm: Vm, name: str, *options: str) -> None:
    script = f"mkdir /www; echo {name} >/www/index.html; exec httpd -f -h /www"
    vm.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)


def serves(vm: Vm, name: str, port: int) -> bool:
    """Whether that container answers on the port."""
    return vm.curl(port) == f"{name}\n"


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
        until(lambda: "port 8081/tcp isn't forwarded: another" in vm.machine("status").err, "the warning", APPEARS)
        assert vm.machine("status").out == "Running\n"
    # Nothing in Docker tells that the port is free now.
    until(lambda: vm.curl(8081) == f"{name}\n", "the port that became free", 2 * APPEARS)
    until(lambda: vm.warnings() == [], "the warning to go", APPEARS)


def test_many_at_once(vm: Vm, name: str) -> None:
    began = time.monotonic()
    serve(vm, name, "-p", "9000-9004:9000-9004")
    until(lambda: {(vm.address, port) for port in range(9000, 9005)} <= listening(), "five ports", APPEARS)
    testbed.say(f"five ports within {time.monotonic() - began:.1f} s of docker run")


def test_every_address_that_a_port_can_be_published_on(vm: Vm, name: str) -> None:
    addresses = {8083: "127.0.0.1", 8084: "0.0.0.0", 8085: "[::1]", 8086: "[::]", 8087: "172.17.0.1", 8088: "10.0.2.15"}
    options = [word for port, address in addresses.items() for word in ("-p", f"{address}:{port}:80")]
    serve(vm, name, *options, "-p", "127.0.0.1:8089:80/udp")
    for port, address in addresses.items():
        until(partial(serves, vm, name, port), f"what is published on {address}", 30)
    udp = "port 8089/udp isn't forwarded: UDP is forwarded only when it is published on 0.0.0.0"
    assert vm.warnings() == [udp]
    # Nothing was opened in the guest for it: the port is on the guest's loopback, as before.
    listeners = vm.ssh("netstat", "-ltn").out
    assert "127.0.0.1:8083" in listeners
    assert "10.0.2.15:8083" not in listeners
    vm.docker("rm", "-f", name)
    until(lambda: not {(vm.address, port) for port in addresses} & listening(), "the ports to go", APPEARS)


def test_a_container_with_the_guests_network(vm: Vm, name: str) -> None:
    serve = "mkdir /www; echo {0} >/www/index.html; httpd -p 8091 -h /www; exec httpd -f -p 127.0.0.1:8092 -h /www"
    vm.docker("run", "-d", "--name", name, "--network", "host", "busybox", "sh", "-c", serve.format(name))
    for port in (8091, 8092):
        until(partial(serves, vm, name, port), f"the host network's port {port}", 30)
    assert vm.warnings() == []
    vm.docker("rm", "-f", name)
    until(lambda: not {(vm.address, 8091), (vm.address, 8092)} & listening(), "the ports to go", APPEARS)


def helpers(vm: Vm) -> list[psutil.Process]:
    return [process for process in vm.store.processes() if "machine.drivers.qemu" in process.cmdline()]


def test_a_helper_that_was_killed_is_started_by_the_next_verb(vm: Vm, name: str) -> None:
    serve(vm, name, "-p", "8093:80", "-p", "127.0.0.1:8094:80")
    until(lambda: vm.curl(8094) == f"{name}\n", "the port", 30)
    [helper] = helpers(vm)
    assert helper.memory_info().rss < 100 << 20
    helper.kill()
    until(lambda: (vm.address, 8094) not in listening(), "the helper's port to go", APPEARS)
    assert vm.store.machine("ls", "--json").code == 0
    until(lambda: vm.curl(8094) == f"{name}\n", "the port of the next helper", 30)
    assert vm.curl(8093) == f"{name}\n"
    # What the killed one had forwarded is known to be ours.
    assert vm.warnings() == []
    assert len(helpers(vm)) == 1
    vm.docker("rm", "-f", name)
    until(lambda: not {(vm.address, 8093), (vm.address, 8094)} & listening(), "the ports to go", APPEARS)


def test_a_qemu_that_was_silent_for_long_costs_no_forwards(vm: Vm, name: str) -> None:
    [helper] = helpers(vm)
    qemu = vm.store.qemu(vm.name)
    qemu.suspend()
    time.sleep(12)  # more than a monitor or Docker is waited for
    qemu.resume()
    serve(vm, name, "-p", "8095:80")
    until(lambda: vm.curl(8095) == f"{name}\n", "the port", 30)
    assert helpers(vm) == [helper]

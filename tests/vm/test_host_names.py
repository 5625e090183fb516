"""The host by name, in the machine and in containers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.testbed import until
from tests.vm.conftest import Docker, Vm

NAMES = ("host.docker.internal", "gateway.docker.internal")
HOST, SERVER = "10.0.2.2", "10.0.2.3"
NETWORKS = ("bridge", "host", "named")


@pytest.fixture(scope="module", autouse=True)
def _named(vm: Vm) -> Iterator[None]:
    vm.docker("network", "create", "named")
    yield
    vm.docker("network", "rm", "named")


@pytest.fixture
def port() -> Iterator[int]:
    """A web server on the loopback of this host."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the host\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def lookup(name: str, kind: str = "a") -> str:
    return f"nslookup -type={kind} {name}; echo code $?"


@pytest.mark.parametrize("name", NAMES)
def test_in_the_machine(vm: Vm, port: int, name: str) -> None:
    assert vm.ssh(f"wget -q -O - http://{name}:{port}/").out == "the host\n"
    assert vm.ssh("cat /etc/resolv.conf").lines[-1] == f"nameserver {SERVER}"


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_in_containers(docker: Docker, port: int, network: str, name: str) -> None:
    """A service on the loopback of the host answers by the name. No IPv6 address isn't "no such name"."""
    script = f"wget -q -O - http://{name}:{port}/; {lookup(name, 'aaaa')}"
    done = docker("run", "--rm", "--network", network, "busybox", "sh", "-c", script)
    assert done.lines[0] == "the host"
    assert done.lines[-1] == "code 0", done.out
    assert "NXDOMAIN" not in done.out


@pytest.mark.parametrize("name", NAMES)
def test_by_tcp(vm: Vm, name: str) -> None:
    labels = "".join(f"{len(label):02x}{label.encode().hex()}" for label in name.split("."))
    query = f"123401000001000000000000{labels}0000010001"
    framed = (
        f"printf {len(query) // 2:04x}{query} | xxd -r -p | sudo socat -t 10 - TCP:{SERVER}:53 | xxd -p | tr -d '\\n'"
    )
    assert vm.ssh(framed).out.endswith("0a000202")


def test_host_gateway_is_the_host(docker: Docker, port: int) -> None:
    script = f"grep there /etc/hosts; wget -q -O - http://there:{port}/"
    done = docker("run", "--rm", "--add-host", "there:host-gateway", "busybox", "sh", "-c", script)
    assert done.lines[0].split() == [HOST, "there"]
    assert done.lines[1] == "the host"


def test_containers_may_publish_port_53(docker: Docker) -> None:
    command = ("run", "--rm", "-p", "53:53", "-p", "53:53/udp", "busybox", "true")
    assert docker(*command).code == 0


@pytest.mark.parametrize("name", ["localhost", "nosuchname.invalid"])
def test_other_names_have_the_answer_of_the_network(vm: Vm, name: str) -> None:
    """The second query has the mark (SO_MARK) that leads past our server."""
    labels = "".join(f"{len(label):02x}{label.encode().hex()}" for label in name.split("."))
    query = f"printf 123401000001000000000000{labels}0000010001 | xxd -r -p"
    ways = (f"UDP:{SERVER}:53", f"UDP:{SERVER}:53,setsockopt-int=1:36:53")
    ours, direct = (vm.ssh(f"{query} | sudo socat -t 10 - {way} | xxd -p").out for way in ways)
    assert ours == direct
    assert ours.startswith("1234"), "the network has a DNS server"


def test_names_go_on_when_their_server_dies(vm: Vm) -> None:
    before = set(vm.ssh("pidof host-names").out.split())
    assert len(before) == 3
    workers = " ".join(before - {min(before, key=int)})
    assert HOST in vm.ssh(f"sudo kill -KILL {workers}; nslookup -type=a {NAMES[0]}").out
    vm.ssh("sudo killall -KILL host-names")

    def served_again() -> bool:
        return not before & (now := set(vm.ssh("pidof host-names || true").out.split())) and len(now) == 3

    until(served_again, "the next server", 30)
    assert HOST in vm.ssh(f"nslookup -type=a {NAMES[0]}").out

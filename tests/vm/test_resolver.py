"""The host's resolver, as a machine has it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import Store, execute, until
from tests.testbed.commands import CREATE


@contextlib.contextmanager
def resolver(address: str, answer: str) -> Iterator[None]:
    """A DNS server on this host's loopback that has one address for all names."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))

        def serve() -> None:
            while query := server.recvfrom(2000):
                data, client = query
                if len(data) < 12:
                    return
                head = data[:2] + bytes.fromhex("8180 0001 0001 0000 0000")
                record = bytes.fromhex("c00c 0001 0001 00000001 0004") + socket.inet_aton(answer)
                server.sendto(head + data[12 : data.index(b"\0", 12) + 5] + record, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"end", (address, 53))
            thread.join()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount namespace, and port 53")
def test_the_host_may_change_its_resolver(store: Store, tmp_path: Path) -> None:
    """As when a VPN comes up. /etc/resolv.conf is the test's own, in a mount namespace in which QEMU runs."""
    config = tmp_path / "resolv.conf"
    config.write_text("nameserver 127.88.0.1\n")
    create = shlex.join(store.argv("create", "--mount", "none", "names"))
    script = f"mount --bind {shlex.quote(str(config))} /etc/resolv.conf && exec {create}"

    def ask(name: str) -> str:
        return store.machine("ssh", "names", f"nslookup -type=a {name}").out

    with resolver("127.88.0.1", "198.51.100.1"), resolver("127.88.0.2", "198.51.100.2"):
        execute(["unshare", "--mount", "sh", "-c", script], env=store.env, timeout=CREATE)
        store.note("names")
        assert "198.51.100.1" in ask("some.test")
        config.write_text("nameserver 127.88.0.2\n")
        until(lambda: "198.51.100.2" in ask("some.test"), "the answer of the other resolver", 60)
        assert "10.0.2.2" in ask("host.docker.internal")

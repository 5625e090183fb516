"""A real SSH server on loopback, as a machine's: it lets in ourselves."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from machine import ssh
from machine.paths import Home
from machine.spec import Address
from machine.ssh import keys
from tests.fixture_types import Add, Made

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
USER = getpass.getuser()


@dataclass(frozen=True)
class Server:
    """folder: where its keys are; authorized: the file to which a machine's key is added."""

    address: Address
    host_key: Path
    authorized: Path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not SSHD:
        pytest.skip("needs OpenSSH's server")
    folder = tmp_path_factory.mktemp("sshd")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = Server(Address("127.0.0.1", ssh_port=port), folder / "key", folder / "authorized_keys")
    keys.generate(server.host_key, "host")
    server.authorized.touch()
    (folder / "conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {server.host_key}\n"
        f"AuthorizedKeysFile {server.authorized}\nPidFile none\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        "MaxStartups 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "conf"], stderr=log)
    with process:
        try:
            deadline = time.monotonic() + 10
            while not ssh.banner(server.address, 1):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)
            yield server
        finally:
            process.terminate()


@pytest.fixture
def reachable(sshd: Server, add: Add, store: Path) -> Made:
    """Put a machine into the store that runs, and that SSH reaches: reachable("web")."""

    def put(name: str = "default", **fields: Any) -> Home:
        add(name, state="Running", address=sshd.address, ssh_user=USER, **fields)
        home = Home(store / "machines" / name)
        keys.generate(home.ssh_key, name)
        for suffix in ("", ".pub"):
            shutil.copy(f"{sshd.host_key}{suffix}", f"{home.host_key}{suffix}")
        public = Path(f"{sshd.host_key}.pub").read_text(encoding="utf-8")
        home.known_hosts.write_text(keys.known_hosts_line(sshd.address.host, sshd.address.ssh_port, public) + "\n")
        with sshd.authorized.open("a") as authorized:
            authorized.write(Path(f"{home.ssh_key}.pub").read_text(encoding="utf-8"))
        return home

    return put

"""A real SSH server on loopback, as a machine's: it lets in ourselves."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback_sockets import port_for_a_server

from machine.paths import MachineFolder
from machine.spec import Address
from machine.ssh import keys
from tests.fixture_types import Add, Made

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
USER = getpass.getuser()
DEADLINE = 60


@dataclass(frozen=True)
class Server:
    """folder: where its keys are; authorized: the file to which a machine's key is added."""

    address: Address
    host_key: Path
    authorized: Path


@contextlib.contextmanager
def running_sshd(folder: Path, port: int, *options: str) -> Iterator[None]:
    """OpenSSH's server on 127.0.0.1, with the host's key and authorized_keys of the folder, until the block ends."""
    asked = [
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/key"),
        *(f"AuthorizedKeysFile {folder}/authorized_keys", "PidFile none", "UsePAM no", "StrictModes no"),
        *("PasswordAuthentication no", "PermitRootLogin prohibit-password", "MaxStartups 100", *options),
    ]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    conf = folder / "conf"
    conf.write_text("\n".join(asked) + "\n")
    if "persourcepenalties" in subprocess.run([str(SSHD), "-T", "-f", conf], capture_output=True, text=True).stdout:
        # From OpenSSH 9.8 on: strangers' keys are tried here, and who comes after them would be kept out.
        conf.write_text("\n".join([*asked, "PerSourcePenalties no"]) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", conf], stderr=log)
    with process:
        try:
            deadline = time.monotonic() + DEADLINE
            while f" port {port}." not in (said := (folder / "log").read_text()):  # "Server listening on 127.0.0.1 …"
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.02)
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not SSHD:
        pytest.skip("needs OpenSSH's server")
    folder = tmp_path_factory.mktemp("sshd")
    with port_for_a_server() as port:
        server = Server(Address("127.0.0.1", ssh_port=port), folder / "key", folder / "authorized_keys")
        keys.generate(server.host_key, "host")
        server.authorized.touch()
        with running_sshd(folder, port, "Subsystem sftp internal-sftp"):
            yield server


@pytest.fixture
def reachable(sshd: Server, add: Add, store: Path) -> Made:
    """Put a machine into the store that runs, and that SSH reaches: reachable("web")."""

    def put(name: str = "default", **fields: Any) -> MachineFolder:
        add(name, state="Running", address=sshd.address, ssh_user=USER, **fields)
        folder = MachineFolder(store / "machines" / name)
        keys.generate(folder.ssh_key, name)
        for suffix in ("", ".pub"):
            shutil.copy(f"{sshd.host_key}{suffix}", f"{folder.host_key}{suffix}")
        public = Path(f"{sshd.host_key}.pub").read_text(encoding="utf-8")
        folder.known_hosts.write_text(keys.known_hosts_line(sshd.address.host, sshd.address.ssh_port, public) + "\n")
        with sshd.authorized.open("a") as authorized:
            authorized.write(Path(f"{folder.ssh_key}.pub").read_text(encoding="utf-8"))
        return folder

    return put

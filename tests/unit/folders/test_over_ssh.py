"""Folders over SSH, with a real SSH server in the guest's place, whose mount is a script of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_sockets import port_for_a_server
from nfs_client import Client, NfsError
from real_sshd import USER, Server, reachable, running_sshd, sshd

from machine import files, spec, store
from machine.errors import SSHFailed
from machine.folders import mount_spec, over_ssh, slots
from machine.folders.over_ssh import Guest, Sharing
from machine.paths import MachineFolder
from machine.ssh import native
from tests.fixture_types import Made

__all__ = ["reachable", "sshd"]

# Seconds: others may use the processors, too.
PATIENCE = 120
REAL_MOUNT = over_ssh._MOUNT
# It says what it was asked for, and waits until the test has mounted that.
_MOUNT = """
echo "$1" >{0}/asked.new && mv {0}/asked.new {0}/asked
until [ -e {0}/result ]; do sleep 0.05; done
echo "mount: no such thing"
read -r code <{0}/result && rm {0}/result
exit $code
"""


@pytest.fixture(autouse=True)
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the guest keeps its table of mounts, and what the test and the script tell each other."""
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "mounts").touch()
    monkeypatch.setattr(over_ssh, "_as_root", lambda user: [])
    monkeypatch.setattr(over_ssh, "_TABLE", f"{folder}/mounts")
    monkeypatch.setattr(over_ssh, "_MOUNT", _MOUNT.format(folder))
    taken = over_ssh._TAKE_OVER.replace("/run/machine-folders-", f"{folder}/before-")
    monkeypatch.setattr(over_ssh, "_TAKE_OVER", taken)
    for wait in ("_TICK", "_RETRY"):
        monkeypatch.setattr(over_ssh, wait, 0.05)
    with port_for_a_server() as port:
        monkeypatch.setattr(mount_spec, "LOOPBACK_PORT", port)
        yield folder


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "file").write_text("hello\n")
    return folder


@contextlib.contextmanager
def sharing(folder: MachineFolder) -> Iterator[Sharing]:
    ended = threading.Event()
    address = store.read(folder).address
    assert address
    found = Sharing(folder, lambda: address, USER, lambda: not ended.is_set())
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join(PATIENCE)


def until(probe: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def asked(guest: Path) -> str:
    """The path that the guest is told to mount."""
    until((guest / "asked").exists, "the guest's mount")
    source = (guest / "asked").read_text().strip()
    (guest / "asked").unlink()
    assert source.startswith("127.0.0.1:/")
    return source.partition(":")[2]


def answer(guest: Path, code: int) -> None:
    files.write(guest / "result", f"{code}\n")


@contextlib.contextmanager
def connected() -> Iterator[Client]:
    with socket.create_connection(("127.0.0.1", mount_spec.LOOPBACK_PORT), PATIENCE) as connection:
        yield Client(connection)


def test_a_folder_is_mounted_with_a_token_and_then_served_on_each_connection(
    reachable: Made, guest: Path, shared: Path
) -> None:
    folder = reachable("dev", mounts=(str(shared),))
    with sharing(folder):
        path = asked(guest)
        assert path.endswith(str(shared))
        with connected() as client, pytest.raises(NfsError, match="status 13"):
            client.mount(shared)
        with connected() as client:
            top = client.mount(path)
            file, _ = client.lookup(top, b"file")
            with pytest.raises(NfsError, match="status 13"):
                client.mount(path)
        answer(guest, 0)
        with connected() as client:
            assert client.read(file)[0] == b"hello\n"
        assert over_ssh.unmounted(folder, [str(shared)], PATIENCE) == {}
    assert not list(folder.path.glob(".token-*"))


def test_a_machine_that_is_resumed_at_once_is_noted_again(reachable: Made, guest: Path, shared: Path) -> None:
    """Its helper has seen nothing of it, and the connection neither."""
    folder = reachable("dev", mounts=(str(shared),))
    with sharing(folder):
        asked(guest)
        (guest / "mounts").write_text(f"127.0.0.1:/x {shared} nfs rw 0 0\n")
        answer(guest, 0)
        assert over_ssh.unmounted(folder, [str(shared)], PATIENCE) == {}
        over_ssh.forget(folder)
        assert over_ssh.unmounted(folder, [str(shared)], PATIENCE) == {}


def test_a_guest_has_no_more_servers_than_it_needs(
    reachable: Made, guest: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SLOTS", 1)
    folder = reachable("dev", mounts=(str(shared),))
    with sharing(folder):
        path = asked(guest)
        with connected() as client:
            client.mount(path)
            with connected() as further:
                assert further.connection.recv(1) == b""
        answer(guest, 0)
        assert over_ssh.unmounted(folder, [str(shared)], PATIENCE) == {}


def test_what_is_added_is_mounted_and_what_fails_is_told_and_tried_again(
    reachable: Made, guest: Path, shared: Path, tmp_path: Path
) -> None:
    folder = reachable("dev", mounts=())
    with sharing(folder):
        gone = tmp_path / "gone"
        machine = replace(store.read(folder), mounts=(str(gone), f"{shared}:/src"))
        files.write(folder.config, spec.dumps(machine))
        assert asked(guest).endswith("/src")
        answer(guest, 32)
        assert over_ssh.unmounted(folder, [str(gone), "/src"], PATIENCE) == {
            str(gone): f"{gone} doesn't exist on this computer",
            "/src": "mount: no such thing",
        }
        asked(guest)
        (guest / "mounts").write_text("127.0.0.1:/x /src nfs rw 0 0\n")
        answer(guest, 0)
        until(lambda: "/src" not in over_ssh.unmounted(folder, ["/src"], 0), "it to be mounted")
        assert over_ssh.unmounted(folder, ["/other"], 0) == {"/other": "the machine's helper hasn't mounted it yet"}


def test_a_server_that_forwards_nothing_is_told(
    reachable: Made, sshd: Server, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_ssh, "_PORT", 0.1)
    folder = reachable("dev", mounts=(str(shared),))
    with port_for_a_server() as port, running_sshd(sshd.host_key.parent, port, "AllowTcpForwarding no"):
        machine = store.read(folder)
        assert machine.address
        address = replace(machine.address, ssh_port=port)
        files.write(folder.config, spec.dumps(replace(machine, address=address)))
        pinned = folder.known_hosts.read_text().replace(f":{machine.address.ssh_port} ", f":{port} ")
        folder.known_hosts.write_text(pinned)
        with sharing(folder):
            [why] = over_ssh.unmounted(folder, [str(shared)], PATIENCE).values()
    assert "AllowTcpForwarding" in why


def test_a_connection_that_the_guest_still_has_gives_the_port_free(
    reachable: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same machine: a host may be another one's, too."""
    folder = reachable("dev")
    address = store.read(folder).address
    assert address
    with contextlib.ExitStack() as stack:

        def opened(machine: str) -> Guest:
            client = stack.enter_context(contextlib.closing(native.connect(folder, address, USER, PATIENCE)))
            transport = client.get_transport()
            assert transport
            guest = Guest(transport, [])
            guest.take_over(machine)
            guest.listen(lambda *_: None)
            return guest

        before, now = opened("one"), opened("one")
        until(lambda: not before.is_there(), "the end of the connection before")
        monkeypatch.setattr(over_ssh, "_PORT", 0.1)
        with pytest.raises(SSHFailed, match="opens no port"):
            opened("another")
        assert now.is_there()


@pytest.mark.parametrize("hides", ["hide", "show"])
def test_a_folder_of_a_host_isnt_hidden_and_the_kernel_ends_the_waiting_there(tmp_path: Path, hides: str) -> None:
    programs, place = tmp_path / "programs", tmp_path / "place"
    for name, script in {"modprobe": "", "grep": "", "mount": 'echo "$@"'}.items():
        program = programs / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def mounted() -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", REAL_MOUNT, "sh", "127.0.0.1:/x", place, "ro,hard", hides],
            env={"PATH": f"{programs}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    code, said = mounted()
    assert (code, said) == (0, f"-i -t nfs -o ro,hard,soft,timeo=600,retrans=3 127.0.0.1:/x {place}\n")
    (place / "file").touch()
    code, said = mounted()
    assert (code, "has files of its own" in said) == ((0, False) if hides == "hide" else (1, True))


def test_what_was_noted_is_forgotten_at_a_start(tmp_path: Path) -> None:
    folder = MachineFolder(tmp_path)
    (folder / over_ssh.NOTE).write_text(json.dumps({"mounted": ["/src"], "failed": {}, "version": None}))
    assert over_ssh.unmounted(folder, ["/src"], 0) == {}
    over_ssh.forget(folder)
    assert list(over_ssh.unmounted(folder, ["/src"], 0)) == ["/src"]
    assert not (folder / over_ssh.NOTE).exists()

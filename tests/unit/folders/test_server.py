"""The process, its protocol, and what it does with bytes that are no calls."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nfs_client import Client, NfsError, Served

from machine import files, spec
from machine.folders import mountd, nfs3, rpc, server, slots, tokens, xdr
from machine.folders.server import _WORKERS, LOG
from tests.unit.folders.conftest import Share
from tests.unit.folders.test_nfs3 import refused

NFS = (nfs3.PROGRAM, nfs3.VERSION)
MOUNT = (mountd.PROGRAM, mountd.VERSION)


def test_every_procedure_is_there(share: Share) -> None:
    for procedure in range(22):
        assert share.client.call(*NFS, procedure)[0] in {rpc.SUCCESS, rpc.GARBAGE_ARGS}
    for procedure in range(6):
        assert share.client.call(*MOUNT, procedure)[0] in {rpc.SUCCESS, rpc.GARBAGE_ARGS}
    assert share.client.call(*NFS, 22)[0] == rpc.PROC_UNAVAIL
    assert share.client.call(*MOUNT, 6)[0] == rpc.PROC_UNAVAIL


def test_other_programs_and_versions_are_told_apart(share: Share) -> None:
    assert share.client.call(100021, 4, 0)[0] == rpc.PROG_UNAVAIL
    state, reader = share.client.call(nfs3.PROGRAM, 4, 0)
    assert (state, reader.u32(), reader.u32()) == (rpc.PROG_MISMATCH, 3, 3)


def test_only_what_is_shared_can_be_mounted(share: Share) -> None:
    for path in ("/", "/etc", f"{share.host}/", f"{share.host}/..", str(share.host.parent), ""):
        with pytest.raises(NfsError, match="status 2"):
            share.client.mount(path)
    _, reader = share.client.call(*MOUNT, mountd.EXPORT)
    assert (reader.flag(), reader.opaque(1024)) == (True, os.fsencode(share.host))
    assert share.client.call(*MOUNT, mountd.UMNT, xdr.opaque(os.fsencode(share.host)))[0] == rpc.SUCCESS
    assert share.client.call(*MOUNT, mountd.UMNTALL)[0] == rpc.SUCCESS


def test_a_folder_that_is_gone_leaves_the_others(home: Path, host: Path) -> None:
    with Served(home, "/no/such/folder", str(host)) as client:
        with pytest.raises(NfsError):
            client.mount("/no/such/folder")
        client.mount(host)


def test_arguments_that_are_cut_short_are_garbage(share: Share) -> None:
    whole = xdr.opaque(share.top) + xdr.opaque(b"name")
    for size in range(0, len(whole), 3):
        assert share.client.call(*NFS, nfs3.LOOKUP, whole[:size])[0] == rpc.GARBAGE_ARGS


def test_noise_kills_nobody_but_its_connection(home: Path, host: Path) -> None:
    noise = random.Random(1)
    (host / "kept").write_bytes(b"kept")
    for _ in range(30):
        with Served(home, str(host)) as client:
            top = client.mount(host)
            for _ in range(20):
                arguments = noise.choice([b"", xdr.opaque(top)]) + noise.randbytes(noise.randrange(64))
                procedure = noise.choice([0, 1, 3, 4, 5, 6, 16, 17, 18, 19, 20, 21])
                assert client.call(*NFS, procedure, arguments)[0] in {rpc.SUCCESS, rpc.GARBAGE_ARGS}
            client.connection.sendall(noise.randbytes(noise.randrange(100)))
    assert (host / "kept").read_bytes() == b"kept"


def test_a_record_too_long_ends_the_connection(share: Share) -> None:
    share.client.connection.sendall(struct.pack(">I", 0xFFFFFFFF))
    assert share.client.connection.recv(1) == b""


def test_a_record_may_come_in_fragments(share: Share) -> None:
    message = share.client.message(*NFS, nfs3.GETATTR, xdr.opaque(share.top))
    for part in (message[:7], message[7:40]):
        share.client.connection.sendall(struct.pack(">I", len(part)) + part)
    share.client.send(message[40:])
    assert share.client.receive()[1] == rpc.SUCCESS


def test_calls_at_once_are_all_answered(share: Share) -> None:
    handle = share.client.create(share.top, b"a")
    blocks = {number: bytes([number]) * 4096 for number in range(64)}
    wanted = set()
    for number, block in blocks.items():
        head = xdr.opaque(handle) + xdr.u64(number * 4096) + xdr.u32(4096) + xdr.u32(nfs3.UNSTABLE)
        share.client.send(share.client.message(*NFS, nfs3.WRITE, head + xdr.opaque(block), xid=5000 + number))
        wanted.add(5000 + number)
    answers = [share.client.receive() for _ in wanted]
    assert {xid for xid, *_ in answers} == wanted
    assert (share.host / "a").read_bytes() == b"".join(blocks.values())


def test_two_connections_see_each_others_files(home: Path, host: Path) -> None:
    with Served(home, str(host)) as one, Served(home, str(host)) as two:
        top = one.mount(host)
        folder = one.mkdir(top, b"d")
        file = two.create(folder, b"a")
        one.write(file, b"text")
        two.rename(top, b"d", top, b"e")
        assert one.read(file)[0] == b"text"
        assert one.lookup(folder, b"a")[0] == file


@pytest.fixture
def machine_folder(tmp_path: Path, host: Path) -> Path:
    """Of a machine that shares `host`, and a folder that isn't there."""
    folder = tmp_path / "store/machines/dev"
    folder.mkdir(parents=True)
    asked = {"uuid": "u", "mac": "52:54:00:00:00:01", "image": "", "memory_mib": 1, "cpus": 1, "disk_mib": 1}
    machine = spec.Machine(name="dev", driver="qemu", mounts=(str(host), "/no/such/folder"), **asked)  # type: ignore[arg-type]
    (folder / "machine.json").write_text(spec.dumps(machine))
    return folder


@contextlib.contextmanager
def process(machine_folder: Path, *words: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A server as QEMU starts it, and the guest's end of its connection."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "machine.folders", str(machine_folder), *words]
    with subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=theirs.fileno()) as started:
        theirs.close()
        with ours:
            ours.settimeout(120)
            yield ours, started


def test_the_process_serves_its_standard_input(machine_folder: Path, host: Path) -> None:
    """And nothing but answers comes back."""
    with process(machine_folder) as (ours, started):
        client = Client(ours)
        top = client.mount(host)
        client.create(top, b"a")
        assert (host / "a").stat().st_mode & 0o777 == 0o644
        ours.shutdown(socket.SHUT_RDWR)
        assert started.wait(120) == 0
    assert "/no/such/folder" in (machine_folder / LOG).read_text()


def test_a_server_that_asks_for_a_token(machine_folder: Path, host: Path) -> None:
    """What was mounted with one is served on connections of the next servers, too."""
    token = tokens.issue(machine_folder)
    with process(machine_folder, tokens.WORD) as (ours, _):
        client = Client(ours)
        with pytest.raises(NfsError, match="status 13"):
            client.mount(host)
        handle = client.create(client.mount(f"/{token}{host}"), b"a")
        with pytest.raises(NfsError, match="status 13"):
            client.mount(f"/{token}{host}")
    with process(machine_folder, tokens.WORD) as (ours, _):
        Client(ours).write(handle, b"text")
    assert (host / "a").read_bytes() == b"text"


def test_a_guest_has_so_many_servers_and_no_more(machine_folder: Path, host: Path) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(process(machine_folder)) for _ in range(slots.SLOTS)]
        for connection, _ in connections:
            Client(connection).mount(host)
        with process(machine_folder) as (further, ended):
            assert further.recv(1) == b""
            assert ended.wait(120) == 0
        assert "8 connections" in (machine_folder / LOG).read_text()
        connections[0][1].kill()
        connections[0][1].wait(120)
        with process(machine_folder) as (further, _):
            Client(further).mount(host)


def test_servers_that_cant_be_counted_serve(machine_folder: Path, host: Path) -> None:
    (machine_folder / slots.FILE).mkdir()
    with process(machine_folder) as (connection, _):
        Client(connection).mount(host)


def test_nothing_is_served_where_it_cant_be_told_what_is_hidden(machine_folder: Path) -> None:
    (machine_folder.parent.parent / "config.toml").write_text("mount-hide = 1\n")
    with process(machine_folder) as (connection, started):
        assert is_closed(connection)
        assert started.wait(120) == 0
    assert "nothing is shared: " in (machine_folder / LOG).read_text()


def test_one_that_can_serve_nothing_keeps_the_guest_from_coming_again_at_once(machine_folder: Path) -> None:
    """Its kernel connects anew as soon as it is hung up on, and each time this computer starts a server."""
    (machine_folder / "folders.db").mkdir()
    with process(machine_folder) as (connection, started):
        until_said(machine_folder, "nothing is shared: unable to open database file")
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(120)
        assert is_closed(connection)
        assert started.wait(120) == 0


def until_said(machine_folder: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in ((machine_folder / LOG).read_text() if (machine_folder / LOG).exists() else ""):
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


def test_what_the_user_hides(machine_folder: Path, host: Path) -> None:
    (host / "keys").mkdir()
    (host / "seen").touch()
    (machine_folder.parent.parent / "config.toml").write_text(f"mount-hide = ['{host}/keys']\n")
    with process(machine_folder) as (connection, _):
        client = Client(connection)
        top = client.mount(host)
        client.walk(top, "seen")
        with refused(errno.ENOENT):
            client.walk(top, "keys")


@pytest.mark.parametrize("sent", [b"", struct.pack(">I", 0x80000028)])
def test_a_connection_on_which_nothing_whole_comes_is_closed(
    home: Path, host: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "_FIRST", 0.05)
    with Served(home, str(host)) as client:
        with contextlib.suppress(BrokenPipeError):  # on a slow host it is closed by then
            client.connection.sendall(sent)
        assert is_closed(client.connection)


def test_a_connection_that_is_idle_for_long_is_closed(home: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_NEXT", 0.05)
    with Served(home, str(host)) as client:
        # It answers before it hangs up, or hangs up at once on a slow host: also while it is being asked.
        with contextlib.suppress(StopIteration, BrokenPipeError, ConnectionResetError):
            client.mount(host)
        assert is_closed(client.connection)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it hadn't read all that was sent
        return True


def test_one_server_has_a_share_of_the_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(server, "_LOG_SHARE", 1000)
    log = server.Log()
    for _ in range(100):
        log("x" * 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    assert lines[-1] == "more of this server isn't told"


def test_it_hangs_up_when_other_folders_are_shared(machine_folder: Path, host: Path, tmp_path: Path) -> None:
    """The guest connects anew, and finds what is shared now; where nothing is, it is hung up on, too."""
    config = machine_folder / "machine.json"
    other = tmp_path / "other"
    other.mkdir()

    def share(*mounts: str) -> None:
        machine = dataclasses.replace(spec.loads(config.read_text(), config), mounts=mounts)
        files.write(config, spec.dumps(machine))

    def is_hung_up_on(client: Client) -> bool:
        client.send(client.message(*NFS, nfs3.GETATTR, xdr.opaque(top)))
        return client.connection.recv(1) == b""

    with process(machine_folder) as (connection, _):
        top = Client(connection).mount(host)
        share(str(host), str(other))
        assert is_hung_up_on(Client(connection))
    with process(machine_folder) as (connection, _):
        client = Client(connection)
        assert client.mount(other) != top
        assert client.getattr(top).type == 2
        share(str(other))
        assert is_hung_up_on(client)
    with process(machine_folder) as (connection, _), pytest.raises(NfsError):
        Client(connection).getattr(top)
    share()
    with process(machine_folder) as (connection, ended):
        assert connection.recv(1) == b""
        assert ended.wait(120) == 0


def test_a_fault_of_the_servers_is_an_answer(home: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    with Served(home, str(host)) as client:
        top = client.mount(host)
        monkeypatch.setattr("machine.folders.export.Export.folder", fail)
        assert client.call(*NFS, nfs3.LOOKUP, xdr.opaque(top) + xdr.opaque(b"a"))[0] == rpc.SYSTEM_ERR
        assert client.getattr(top).type == 2


def test_files_are_closed_when_nobody_uses_them(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.folders.export._IDLE", 0.05)
    closed = threading.Event()
    remove = os.close

    def close(descriptor: int) -> None:
        remove(descriptor)
        closed.set()

    handle = share.client.create(share.top, b"a")
    share.client.read(handle)
    monkeypatch.setattr(os, "close", close)
    assert closed.wait(60)


def test_fragments_of_nothing_end_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(bytes(4 * 100))
        with pytest.raises(rpc.Broken):
            next(rpc.records(theirs))


def test_calls_that_were_not_begun_when_the_guest_hung_up_are_not_done(
    home: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest sends them again: done late, they would lie over what it wrote since."""
    begun, go_on, done = threading.Semaphore(0), threading.Event(), []
    write = nfs3.Nfs3.write

    def slow(self: nfs3.Nfs3, call: rpc.Call) -> bytes:
        begun.release()
        assert go_on.wait(120)
        done.append(call.xid)
        return write(self, call)

    shutdown = socket.socket.shutdown

    def hung_up(connection: socket.socket, how: int) -> None:
        shutdown(connection, how)
        if threading.current_thread() is served.thread:  # it has forgotten the calls that weren't begun
            go_on.set()

    monkeypatch.setattr(nfs3.Nfs3, "write", slow)
    monkeypatch.setattr(socket.socket, "shutdown", hung_up)
    served = Served(home, str(host))
    with served as client:
        handle = client.create(client.mount(host), b"a")
        arguments = xdr.opaque(handle) + xdr.u64(0) + xdr.u32(1) + xdr.u32(2) + xdr.opaque(b"x")
        for xid in range(900, 910):
            client.send(client.message(*NFS, nfs3.WRITE, arguments, xid))
        for _ in range(_WORKERS):
            assert begun.acquire(timeout=120)
    assert len(done) == _WORKERS

"""Servers that drop the connection, stall, or lie, at each step: each becomes an SSHFailed, in time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bad_sshd import FAULTS, STEPS, BadServer, bad_server

from machine import ssh
from machine.errors import SSHFailed, SSHTimeout
from machine.paths import MachineFolder
from machine.spec import Address
from machine.ssh import keys
from machine.ssh import native as native_ssh

pytestmark = pytest.mark.timeout(300)
both = pytest.mark.parametrize("native", ["false", "true"], ids=["openssh", "paramiko"])
Begin = Callable[[str, str], contextlib.AbstractContextManager[tuple[BadServer, Address]]]
COMMAND = ["say", "something"]
# By step and fault, what the sentence says; without paramiko's word for it there is nothing to tell two cases apart.
SAYS = {
    "drop": "closed the connection|doesn't speak SSH|the connection broke",
    "stall": "doesn't answer in time|timed out after",
    "lie": "doesn't speak SSH|doesn't take the machine's key|opens no session|runs no command|broke|signal|in time",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MachineFolder:
    folder = MachineFolder(tmp_path_factory.mktemp("dev"))
    keys.generate(folder.ssh_key, "test")
    keys.generate(folder.host_key, "host")
    return folder


@pytest.fixture
def begin(folder: MachineFolder) -> Begin:
    @contextlib.contextmanager
    def at(step: str, fault: str) -> Iterator[tuple[BadServer, Address]]:
        with bad_server(step, fault, folder.host_key) as server:
            public = Path(f"{folder.host_key}.pub").read_text(encoding="utf-8")
            folder.known_hosts.write_text(keys.known_hosts_line("127.0.0.1", server.port, public) + "\n")
            yield server, Address("127.0.0.1", ssh_port=server.port)

    return at


@pytest.fixture(autouse=True)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = request.node.callspec.params.get("native", "true") if hasattr(request.node, "callspec") else "true"
    monkeypatch.setenv(ssh.NATIVE_VARIABLE, chosen)


@both
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_run(
    folder: MachineFolder, begin: Begin, step: str, fault: str, native: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # OpenSSH hears 19 lines of nonsense before the banner, as it should (RFC 4253, 4.2), until its time is over.
    short = fault == "stall" or (step, fault) == ("banner", "lie")
    with begin(step, fault) as (server, address), pytest.raises(SSHFailed, match=SAYS[fault]) as caught:
        ssh.run(folder, address, "user", COMMAND, timeout=0.6 if short else 30)
    assert str(address.ssh_port) in caught.value.message
    assert caught.value.hint
    assert short or server.reached.is_set()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_a_session(
    folder: MachineFolder,
    begin: Begin,
    step: str,
    fault: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here only a server that doesn't answer ends it: a command may take as long as it likes."""
    if (step, fault) in {("output", "stall"), ("status", "stall")}:
        pytest.skip("the server is alive, and its command still runs")
    if fault == "stall":
        monkeypatch.setattr(native_ssh, "CONNECT_TIMEOUT", 0.5)
    with begin(step, fault) as (_, address):
        assert ssh.interactive(folder, address, "user", COMMAND) == ssh.NO_CONNECTION
    assert capfd.readouterr().err.count("\n") <= 2


def test_a_session_whose_server_no_longer_answers(
    folder: MachineFolder, begin: Begin, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_ssh, "ALIVE_TIMEOUT", 0.3)
    with begin("alive", "stall") as (_, address):
        assert ssh.interactive(folder, address, "user", COMMAND) == ssh.NO_CONNECTION
    assert "the connection broke" in capfd.readouterr().err


@both
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["banner", "kex", "auth", "open", "exec"])
def test_ready(
    folder: MachineFolder, begin: Begin, step: str, fault: str, native: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "stall":
        monkeypatch.setattr(ssh, "CONNECT_TIMEOUT", 0.3)
    with begin(step, fault) as (_, address):
        assert not ssh.ready(folder, address, "user", timeout=0.3)


def test_a_command_that_takes_too_long_is_both_errors() -> None:
    from machine.ssh.failure import timed_out

    error = timed_out(MachineFolder(Path("/dev")), Address("127.0.0.1"), ["sh", "-c", "x" * 500], 5)
    assert isinstance(error, SSHTimeout)
    assert isinstance(error, SSHFailed)
    assert len(error.message) < 150


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["banner", "kex"])
def test_a_key_that_is_looked_at(begin: Begin, step: str, fault: str) -> None:
    with begin(step, fault) as (_, address), pytest.raises(SSHFailed, match=r"shows no ssh-ed25519 key: .") as caught:
        native_ssh.host_key(address, "ssh-ed25519", timeout=0.5)
    assert caught.value.hint


@both
def test_a_signal_and_255_are_told_apart(folder: MachineFolder, begin: Begin, native: str) -> None:
    with begin("status", "lie") as (_, address), pytest.raises(SSHFailed, match="a signal ended"):
        ssh.run(folder, address, "user", COMMAND)
    with begin("", "") as (server, address):
        server.status = 255
        done = ssh.run(folder, address, "user", COMMAND, check=False)
    assert (done.code, done.stdout, done.stderr) == (255, "half of what is to be said\n", "words\n")


@both
def test_damaged_files(folder: MachineFolder, begin: Begin, native: str, tmp_path: Path) -> None:
    spoilt = MachineFolder(tmp_path)
    spoilt.ssh_key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    spoilt.ssh_key.chmod(0o600)
    with begin("", "") as (_, address):
        for known_hosts in (folder.known_hosts.read_text(), "127.0.0.1 ssh-ed25519 !!!\n", "\xff\xfe"):
            spoilt.known_hosts.write_text(known_hosts)
            with pytest.raises(SSHFailed, match=r"no SSH connection|isn't the machine"):
                ssh.run(spoilt, address, "user", COMMAND)

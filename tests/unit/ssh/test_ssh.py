import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import paramiko
import pytest
from loopback_sockets import closed_port, port_for_a_server
from real_sshd import SSHD, USER, running_sshd

from machine import ssh
from machine.errors import HostKeyChanged, SSHFailed, ToolFailed, Usage, WaitTimeout
from machine.paths import MachineFolder
from machine.spec import Address
from machine.ssh import keys, openssh
from machine.ssh import native as native_ssh

real_server = pytest.mark.skipif(not SSHD, reason="needs OpenSSH's server")
# Seconds: others may use the processors, too.
PATIENCE = 60
both = pytest.mark.parametrize("native", ["false", "true"], ids=["openssh", "paramiko"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MachineFolder, Address]]:
    """A real sshd that lets in ourselves, by the key of a home whose path is as bad as paths get."""
    place = tmp_path_factory.mktemp("a %h 100% \"b\" 'c' \\d $x [y]*?,;~`#ü")
    conf = tmp_path_factory.mktemp("sshd")
    with port_for_a_server() as port:
        folder, address = MachineFolder(place), Address("127.0.0.1", ssh_port=port)
        keys.generate(folder.ssh_key, "test")
        keys.generate(folder.host_key, "host")
        pin(folder, address)
        shutil.copy(folder.host_key, conf / "key")
        shutil.copy(folder / "id_ed25519.pub", conf / "authorized_keys")
        with running_sshd(conf, port):
            yield folder, address


def pin(folder: MachineFolder, address: Address) -> None:
    public = Path(f"{folder.host_key}.pub").read_text(encoding="utf-8")
    folder.known_hosts.write_text(keys.known_hosts_line(address.host, address.ssh_port, public) + "\n")


@pytest.fixture
def other(server: tuple[MachineFolder, Address], tmp_path: Path) -> MachineFolder:
    """A home with the right pin and the right key, to spoil."""
    folder = MachineFolder(tmp_path / "dev")
    shutil.copytree(server[0].path, folder.path)
    return folder


@pytest.fixture(autouse=True)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    native = request.node.callspec.params.get("native", "false") if hasattr(request.node, "callspec") else "false"
    monkeypatch.setenv(ssh.NATIVE_VARIABLE, native)


def test_argv() -> None:
    address = Address("127.77.0.2", ssh_port=2222)
    words = openssh.argv(MachineFolder(Path("/a b")), address, "docker", ["-v", "x y"], extra=["-A"])
    assert Path(words[0]).name.startswith("ssh")
    assert words[1:3] == ["-F", "none"]
    assert words[-9:] == ["-A", "-p", "2222", "-l", "docker", "--", "127.77.0.2", "-v", "x y"]
    given = set(words)
    assert {"StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "BatchMode=yes", "ControlPath=none"} <= given
    assert 'UserKnownHostsFile="/a b/known_hosts"' in given
    assert ("-t" in openssh.argv(MachineFolder(Path("/")), Address("h"), "u", tty=True), "-t" in given) == (True, False)
    assert "-T" in openssh.argv(MachineFolder(Path("/")), Address("h"), "u", tty=False)


@real_server
def test_openssh_takes_the_options_as_they_are_meant(server: tuple[MachineFolder, Address]) -> None:
    words = openssh.argv(*server, USER, extra=["-G"])
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    folder = server[0].path
    assert f"port {server[1].ssh_port}" in shown
    assert "hostkeyalgorithms ssh-ed25519" in shown
    assert "stricthostkeychecking true" in shown
    assert [line for line in shown if line.startswith("identityfile")] == [
        "identityfile " + f"{folder}/id_ed25519".replace("%", "%%")
    ]


@real_server
@both
def test_streams_and_exit_codes(server: tuple[MachineFolder, Address], native: str) -> None:
    done = ssh.run(*server, USER, ["echo out; echo err >&2; exit 3"], check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert ssh.run(*server, USER, ["cat"], input=b"x" * 300_000).stdout == "x" * 300_000
    assert ssh.run(*server, USER, ["echo", "'a", " b'"]).stdout == "a  b\n"
    with pytest.raises(ToolFailed, match="nothing here") as caught:
        ssh.run(*server, USER, ["echo nothing here >&2; false"])
    assert caught.value.code == 1


@real_server
@both
def test_much_on_both_streams(server: tuple[MachineFolder, Address], native: str) -> None:
    done = ssh.run(*server, USER, ["head -c 3000000 /dev/zero | tee /dev/stderr"])
    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 3_000_000)


@real_server
@both
def test_a_command_that_takes_too_long(server: tuple[MachineFolder, Address], native: str) -> None:
    with pytest.raises(WaitTimeout, match="to end"):
        # paramiko's connection is made within that time, too.
        ssh.run(*server, USER, ["sleep", "600"], timeout=6 if native == "true" else 2)


@real_server
@both
def test_another_host_key_is_refused_at_once(
    server: tuple[MachineFolder, Address], other: MachineFolder, native: str
) -> None:
    keys.generate(other.host_key, "intruder")
    pin(other, server[1])
    for attempt in (ssh.run, ssh.ready):
        with pytest.raises(HostKeyChanged, match="another host key") as caught:
            attempt(other, server[1], USER, ["true"]) if attempt is ssh.run else ssh.ready(other, server[1], USER)
        assert caught.value.hint


@real_server
@both
def test_an_unknown_host_is_refused(server: tuple[MachineFolder, Address], other: MachineFolder, native: str) -> None:
    other.known_hosts.write_text("")
    with pytest.raises(SSHFailed):
        ssh.run(other, server[1], USER, ["true"])
    assert other.known_hosts.read_text() == ""


@real_server
@both
def test_another_key_doesnt_get_in(server: tuple[MachineFolder, Address], other: MachineFolder, native: str) -> None:
    keys.generate(other.ssh_key, "stranger")
    with pytest.raises(SSHFailed, match="no SSH connection"):
        ssh.run(other, server[1], USER, ["true"])
    # A guest that is booting may get its authorized_keys late: no reason to give up.
    assert not ssh.ready(other, server[1], USER)


@real_server
@both
def test_the_users_own_keys_arent_tried(
    server: tuple[MachineFolder, Address],
    other: MachineFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    native: str,
) -> None:
    """An agent, or a key in ~/.ssh, that would let us in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    shutil.copy(server[0].ssh_key, tmp_path / ".ssh" / "id_ed25519")
    keys.generate(other.ssh_key, "stranger")
    with agent(server[0].ssh_key) as place:
        monkeypatch.setenv("SSH_AUTH_SOCK", place)
        with pytest.raises(SSHFailed):
            ssh.run(other, server[1], USER, ["true"])


@contextlib.contextmanager
def agent(key: Path) -> Iterator[str]:
    # Not in tmp_path: a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/agent"
        with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
            try:
                add: list[str | Path] = ["ssh-add", "-q", key]
                # Its socket is there a moment before it listens.
                while subprocess.run(add, capture_output=True, env=os.environ | {"SSH_AUTH_SOCK": place}).returncode:
                    assert process.poll() is None
                    time.sleep(0.02)
                yield place
            finally:
                process.terminate()


@real_server
@both
def test_ready(server: tuple[MachineFolder, Address], native: str) -> None:
    assert ssh.ready(*server, USER)
    with closed_port() as port:
        assert not ssh.ready(server[0], Address("127.0.0.1", ssh_port=port), USER)
    assert not ssh.ready(*server, "no-such-user")


def test_a_forward_without_a_guest_behind_it_isnt_ready(tmp_path: Path) -> None:
    """Such a forward takes the connection, then says nothing, or closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", ssh_port=listener.getsockname()[1])
        listener.settimeout(PATIENCE)
        assert not ssh.ready(MachineFolder(tmp_path), address, USER, timeout=0.2)
        closer = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(2)])
        closer.start()
        assert not ssh.banner(address, PATIENCE)
        closer.join()


@pytest.mark.parametrize("error", [EOFError(), paramiko.SSHException("it is closed"), BrokenPipeError()])
def test_a_connection_that_breaks_while_we_send_is_seen_by_who_reads(error: Exception) -> None:
    class Channel:
        def sendall(self, data: bytes) -> None:
            raise error

    native_ssh._send(cast(paramiko.Channel, Channel()), b"text")


def test_paramiko_when_there_is_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ssh.is_native()
    monkeypatch.setenv("PATH", "/nowhere")
    assert ssh.is_native()


def test_options_of_ssh_need_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ssh.NATIVE_VARIABLE, "1")
    with pytest.raises(Usage, match="-A"):
        ssh.interactive(MachineFolder(tmp_path), Address("127.0.0.1"), "u", extra=["-A"])


def session(folder: MachineFolder, address: Address, command: tuple[str, ...] = ()) -> list[str]:
    program = (
        "import sys; from pathlib import Path; from machine import ssh; from machine.paths import MachineFolder;"
        "from machine.spec import Address;"
        f"sys.exit(ssh.interactive(MachineFolder(Path({str(folder.path)!r})), {address!r}, {USER!r}, {command!r}))"
    )
    return [sys.executable, "-c", program]


@real_server
@both
def test_a_command_in_a_pipe(server: tuple[MachineFolder, Address], other: MachineFolder, native: str) -> None:
    done = subprocess.run(
        session(*server, ("cat; echo err >&2; exit 5",)), input=b"some\0bytes", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, b"some\0bytes", b"err\n")
    keys.generate(other.ssh_key, "stranger")
    done = subprocess.run(session(other, server[1], ("true",)), input=b"", capture_output=True, check=False)
    assert done.returncode == 255
    assert b"uthentication" in done.stderr or b"denied" in done.stderr


class Terminal:
    """A process on a pseudo-terminal of its own."""

    def __init__(self, argv: list[str]) -> None:
        self.master, slave = pty.openpty()
        self.seen = b""
        self.resize(33, 101)
        # setsid gives it the terminal as its controlling one: only so does a resize reach it.
        self.process = subprocess.Popen(["setsid", "--ctty", "--wait", *argv], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern.encode(), self.seen)):
            readable, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 4096)
        self.seen = self.seen[found.end() :]

    def close(self) -> None:
        os.close(self.master)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()


@real_server
@both
def test_a_terminal(server: tuple[MachineFolder, Address], native: str) -> None:
    terminal = Terminal(session(*server))
    try:
        terminal.type("echo $((6 * 7))-$TERM\n")
        terminal.expect(r"[\r\n]42-\S+\r\n")
        terminal.type("stty size\n")
        terminal.expect(r"[\r\n]33 101\r\n")
        terminal.resize(44, 120)
        # A resize takes a moment to arrive.
        terminal.type("until stty size | grep 44; do sleep 0.1; done\n")
        terminal.expect(r"[\r\n]44 120\r\n")
        # Ctrl-C goes to the machine, and must not end the session.
        terminal.type("echo begun$((1 + 1)); sleep 60\n")
        terminal.expect("begun2")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.expect(r"\^C")
        terminal.type("echo $((1000 + 1))\n")
        terminal.expect("1001")
        terminal.type("exit 7\n")
        assert terminal.process.wait(PATIENCE) == 7
    finally:
        terminal.close()


def test_a_shown_command_is_a_shell_command(tmp_path: Path) -> None:
    """What --debug prints can be pasted."""
    words = openssh.argv(MachineFolder(tmp_path / 'a "b"'), Address("127.0.0.1"), "docker")
    assert shlex.split(shlex.join(words)) == words

"""The drivers generic and none: hosts and daemons that are there already."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_host import FakeHost, stand_in
from real_sshd import USER, Server
from web_server import docker_engine

from machine import helper, instance, store
from machine.docker import api
from machine.errors import SSHFailed
from machine.folders import over_ssh
from machine.guest import existing_host
from machine.paths import MachineFolder
from machine.progress import Silent
from machine.spec import Address
from machine.ssh import keys
from machine.tls import x509
from tests.fixture_types import Add, Invoke


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A Debian host behind the SSH server: what provisioning does to it happens to this, and not to our own."""
    fake = FakeHost("debian")
    stand_in(monkeypatch, fake)
    monkeypatch.setattr(api.Client, "ping", lambda _: True)
    return fake


@pytest.fixture
def words(sshd: Server, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that make a machine of the driver generic, of our own SSH server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    keys.generate(tmp_path / "key", "mine")
    with sshd.authorized.open("a") as authorized:
        authorized.write((tmp_path / "key.pub").read_text())
    options = {
        "ip-address": "127.0.0.1",
        "ssh-port": sshd.address.ssh_port,
        "ssh-user": USER,
        "ssh-key": tmp_path / "key",
    }
    return ["-d", "generic", *(word for key, value in options.items() for word in (f"--generic-{key}", str(value)))]


def test_a_host_is_taken(invoke: Invoke, words: list[str], host: FakeHost, sshd: Server) -> None:
    ended = invoke("create", *words, "--engine-label", "stage=test", "far")
    assert ended.code == 0, ended.err
    public = Path(f"{sshd.host_key}.pub").read_text(encoding="utf-8")
    assert f"trusting the host's key {existing_host.fingerprint(public)}" in ended.err
    assert "far: note: installed Docker\n" in ended.err
    made = store.load("far")
    assert (made.driver, made.image, made.memory_mib, made.ssh_user) == ("generic", "", 0, USER)
    assert json.loads(host.files["/etc/docker/daemon.json"])["labels"] == ["provider=generic", "stage=test"]
    assert invoke("url", "far").out == "tcp://127.0.0.1:2375\n"
    assert invoke("status", "far").out == "Running\n"
    assert invoke("ssh", "far", "echo", "in").out == "in\n"
    row = json.loads(invoke("ls", "--json").out)[0]
    assert (row["driver"], row["memory_mib"], row["cpus"]) == ("generic", None, None)
    assert invoke("provision", "far").out == "far: there was nothing to change\n"
    assert invoke("start", "far").out == 'Machine "far" is already running.\n'


def test_it_is_not_ours_to_switch_off(invoke: Invoke, words: list[str], host: FakeHost) -> None:
    invoke("create", "-q", *words, "far")
    for verb in ("stop", "kill"):
        ended = invoke(verb, "far")
        assert (ended.code, "machine ssh far sudo poweroff" in ended.err) == (1, True)
    files = dict(host.files)
    assert invoke("rm", "-y", "far").code == 0
    assert host.files == files
    assert store.names() == []


def test_it_may_have_folders_of_this_computer(
    invoke: Invoke, words: list[str], host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper brings them while the machine has some; what else the host has mounted stays with `rm`."""
    begun: list[str] = []
    monkeypatch.setattr(helper, "ensure", lambda folder, module: begun.append(module))
    monkeypatch.setattr(over_ssh, "unmounted", lambda *_: {})
    assert invoke("create", "-q", *words, "plain").code == 0
    assert begun == []
    ended = invoke("create", *words, "--mount", f"{tmp_path}:/src", "--mount", f"{tmp_path}:/data", "far")
    assert ended.code == 0, ended.err
    assert "docker run -v shows files of this computer below /src, /data, and the host's elsewhere" in ended.err
    assert set(begun) == {"machine.drivers.generic"}
    assert "/src: mounted" in invoke("status", "far").err
    host.files["/proc/mounts"] = "/dev/sdb /data ext4 rw 0 0\n127.0.0.1:/x/src /src nfs rw 0 0\n"
    host.answers.append(("umount -l /src", 0, ""))
    assert invoke("rm", "-y", "far").code == 0
    assert host.ran[-1] == "umount -l /src"


def test_a_host_that_keeps_its_folders_at_rm_is_told(
    invoke: Invoke, words: list[str], host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "ensure", lambda *_: None)
    monkeypatch.setattr(over_ssh, "unmounted", lambda *_: {})
    invoke("create", "-q", *words, "--mount", f"{tmp_path}:/src", "far")
    host.files["/proc/mounts"] = "127.0.0.1:/x/src /src nfs rw 0 0\n"
    host.fails = "umount"
    host.answers.append(("umount ...", 0, ""))
    ended = invoke("rm", "-y", "far")
    assert (ended.code, "there: umount -l /src" in ended.err) == (0, True), ended.err


def test_a_failure_leaves_no_machine_and_says_what_was_done(invoke: Invoke, words: list[str], host: FakeHost) -> None:
    host.fails = "systemctl restart"
    ended = invoke("create", "-q", *words, "far")
    assert (ended.code, "done before: installed Docker" in ended.err) == (1, True)
    assert store.names() == []
    host.fails = ""
    assert invoke("create", "-q", *words, "far").code == 0
    assert sum("apt-get" in command for command in host.ran) == 2


def test_the_host_key_is_pinned(invoke: Invoke, words: list[str], host: FakeHost, sshd: Server) -> None:
    public = Path(f"{sshd.host_key}.pub").read_text(encoding="utf-8").strip()
    for expected in (public, existing_host.fingerprint(public)):
        ended = invoke("create", *words, "--generic-host-key", expected, "far")
        assert (ended.code, "trusting" in ended.err) == (0, False)
        invoke("rm", "-y", "far")
    ended = invoke("create", "-q", *words, "--generic-host-key", "SHA256:" + "x" * 43, "far")
    assert (ended.code, "isn't the expected host" in ended.err) == (1, True)
    assert store.names() == []


def test_a_host_that_is_changed_later_is_refused(
    invoke: Invoke, words: list[str], host: FakeHost, tmp_path: Path
) -> None:
    invoke("create", "-q", *words, "far")
    keys.generate(tmp_path / "another", "host")
    folder = store.folder_of("far")
    address = instance.load("far").address
    key = (tmp_path / "another.pub").read_text()
    folder.known_hosts.write_text(keys.known_hosts_line(address.host, address.ssh_port, key) + "\n")
    assert invoke("ssh", "far", "true").code == 255


def test_what_is_wrong_is_found_before_anything_is_written(
    invoke: Invoke, words: list[str], store: Path, tmp_path: Path
) -> None:
    assert "--generic-ip-address is required" in invoke("create", "-d", "generic", "far").err
    ended = invoke("create", *words[:-1], tmp_path / "absent", "far")
    assert (ended.code, "no SSH key was found" in ended.err) == (3, True)
    ended = invoke("create", *words, "--generic-ssh-port", "1", "far")
    assert (ended.code, "doesn't answer on port 1" in ended.err) == (3, True)
    assert not (store / "machines").exists() or not list((store / "machines").iterdir())


def test_a_server_without_such_a_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        closer = threading.Thread(target=lambda: listener.accept()[0].close())
        closer.start()
        with pytest.raises(SSHFailed, match="shows no ssh-ed25519 key"):
            existing_host.pin(
                MachineFolder(tmp_path), Address("127.0.0.1", ssh_port=listener.getsockname()[1]), "", Silent()
            )
        closer.join()


def test_certificates_of_a_host_are_renewed(invoke: Invoke, words: list[str], host: FakeHost) -> None:
    invoke("create", "-q", *words, "far")
    before = host.files["/etc/docker/tls/server.pem"]
    assert invoke("regenerate-certs", "-f", "-q", "far").code == 0
    assert host.files["/etc/docker/tls/server.pem"] == store.folder_of("far").server_cert.read_text() != before


@pytest.fixture
def engine() -> Iterator[str]:
    """The URL of a Docker daemon without TLS."""
    with docker_engine() as port:
        yield f"tcp://127.0.0.1:{port}"


def test_a_daemon_without_tls(invoke: Invoke, store: Path, engine: str) -> None:
    ended = invoke("create", "-d", "none", "--url", engine, "--no-tls", "there")
    assert (ended.code, "note" in ended.err) == (0, False)
    assert invoke("url", "there").out == f"{engine}\n"
    assert invoke("status", "there").out == "Running\n"
    assert invoke("version", "there").out == "28.5.1\n"
    assert f'export DOCKER_HOST="{engine}"' in invoke("env", "there").out
    assert "DOCKER_CERT_PATH" in invoke("env", "there").out.partition("export")[0]
    assert json.loads(invoke("ls", "--json").out)[0]["docker"] == "28.5.1"
    assert invoke("stop", "there").code == 1
    for words in (["ssh", "there", "true"], ["provision", "there"], ["upgrade", "there"], ["scp", "a", "there:"]):
        ended = invoke(*words)
        assert (ended.code, "it has no SSH" in ended.err) == (2, True)
    assert invoke("regenerate-certs", "-f", "there").out == "Regenerated TLS certificates\n"
    assert invoke("rm", "-y", "there").code == 0
    assert not (store / "machines" / "there").exists()


def test_a_daemon_that_does_not_answer_now(invoke: Invoke, store: Path) -> None:
    ended = invoke("create", "-d", "none", "--url", "tcp://127.0.0.1:1", "--no-tls", "later")
    assert (ended.code, "nothing answers on tcp://127.0.0.1:1 now" in ended.err) == (0, True)


def test_certificates_that_are_given(invoke: Invoke, store: Path, tmp_path: Path) -> None:
    ca = x509.new_ca("theirs")
    client = x509.issue(ca, "client", usage="client")
    for name, raw in (("ca", ca.cert_pem()), ("cert", client.cert_pem()), ("key", client.key_pem())):
        (tmp_path / name).write_bytes(raw)
    given = [word for name in ("ca", "cert", "key") for word in (f"--none-{name}", tmp_path / name)]
    url = ["-d", "none", "--url", "tcp://127.0.0.1:1"]
    assert invoke("create", *url, *given[:4], "b").code == 3
    assert invoke("create", *url, *given, "--no-tls", "b").code == 3
    assert invoke("create", *url, *given[:5], tmp_path / "absent", "b").code == 3
    assert invoke("create", *url, *given, "b").code == 0
    home = store / "machines" / "b"
    assert [(home / f"{name}.pem").read_bytes() for name in ("ca", "cert", "key")] == [
        (tmp_path / name).read_bytes() for name in ("ca", "cert", "key")
    ]
    assert (home / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_stores_own_certificates_where_none_are_given(invoke: Invoke, store: Path) -> None:
    assert invoke("create", "-q", "-d", "none", "--url", "tcp://127.0.0.1", "b").code == 0
    assert invoke("url", "b").out == "tcp://127.0.0.1:2376\n"
    assert (store / "machines/b/ca.pem").read_bytes() == (store / "certs/ca.pem").read_bytes()
    assert not (store / "machines/b/server.pem").exists()


@pytest.mark.parametrize("url", ["", "unix:///var/run/docker.sock", "tcp://", "tcp://h:x", "tcp://h/v1.24", "h:2375"])
def test_what_is_no_url(invoke: Invoke, store: Path, url: str) -> None:
    ended = invoke("create", "-d", "none", "--url", url, "b")
    problem = f'invalid URL of a Docker daemon: "{url}"' if url else "--url is required"
    assert (ended.code, f"Error: {problem}\nNext: machine create --driver none --url " in ended.err) == (3, True)


def test_version_of_a_daemon_that_is_silent(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    version = api.Client.version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        add("web", state="Running", tls=False, address=Address("127.0.0.1", listener.getsockname()[1]))
        monkeypatch.setattr(api.Client, "version", lambda client: given.append(client.timeout) or version(client))
        ended = invoke("version", "--timeout", "0.3", "web")
    assert (ended.code, "doesn't answer" in ended.err, given) == (1, True, [0.3])

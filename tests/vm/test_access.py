"""Nobody else gets in."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from machine.tls import certs
from tests.testbed import Done, environment, execute, listening
from tests.vm.conftest import Vm


def curl(*words: str | Path) -> Done:
    return execute(["curl", "-sS", "-m", "60", *words], env=environment(), code=None)


def ping(vm: Vm) -> str:
    return f"https://{vm.address}:2375/_ping"


def test_with_its_certificate_curl_gets_in(shared: Vm) -> None:
    """Without this, the refusals below could have any cause."""
    home = shared.store.folder_of(shared.name)
    own = ("--cacert", home / "ca.pem", "--cert", home / "cert.pem", "--key", home / "key.pem")
    assert curl(*own, ping(shared)).out == "OK"


def test_without_a_certificate(shared: Vm) -> None:
    refused = curl("--insecure", ping(shared))
    assert (refused.code, refused.out) == (56, "")
    assert "certificate required" in refused.err


def test_with_a_certificate_of_another_store(shared: Vm, tmp_path: Path) -> None:
    certs.regenerate(tmp_path, ca=True)
    refused = curl("--insecure", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem", ping(shared))
    assert (refused.code, refused.out) == (56, "")
    assert "alert" in refused.err


def test_another_ca_is_not_believed(shared: Vm, tmp_path: Path) -> None:
    certs.regenerate(tmp_path, ca=True)
    assert curl("--cacert", tmp_path / "ca.pem", ping(shared)).code == 60


def test_plain_http(shared: Vm) -> None:
    refused = curl(f"http://{shared.address}:2375/_ping")
    assert refused.code != 0
    assert refused.out == ""
    env = {**environment(), "DOCKER_HOST": f"tcp://{shared.address}:2375"}
    assert execute(["docker", "version"], env=env, code=1).err != ""


def test_tls_before_1_2(shared: Vm) -> None:
    home = shared.store.folder_of(shared.name)
    own = ("--cacert", home / "ca.pem", "--cert", home / "cert.pem", "--key", home / "key.pem")
    assert curl("--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", *own, ping(shared)).code == 35


@pytest.mark.parametrize("host", ["127.0.0.1", "127.77.255.253", "neighbour"])
def test_nothing_listens_elsewhere(shared: Vm, host: str) -> None:
    block, _, last = shared.address.rpartition(".")
    address = f"{block}.{int(last) + 100}" if host == "neighbour" else host
    with socket.socket() as client:
        client.settimeout(10)
        assert client.connect_ex((address, 2375)) != 0


def test_qemu_listens_on_its_address_only(shared: Vm) -> None:
    pid = shared.store.qemu(shared.name).pid
    connections = [found for found in psutil.net_connections("inet") if found.pid == pid]
    ours = {(found.laddr.ip, found.laddr.port) for found in connections if found.laddr}
    open_to_all = {(ip, port) for ip, port in ours if ip != shared.address and (ip, port) in listening()}
    assert open_to_all == set()
    assert (shared.address, 2375) in ours


def ssh(vm: Vm, *options: str, user: str = "docker") -> Done:
    words = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", *options]
    return execute([*words, f"{user}@{vm.address}", "true"], env=environment(), code=255)


ANY_HOST = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
NO_KEY = ("-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-o", "IdentityAgent=none")


def test_ssh_without_a_key(shared: Vm) -> None:
    refused = ssh(shared, *ANY_HOST, *NO_KEY, "-o", "PreferredAuthentications=password,keyboard-interactive,publickey")
    # What is in the brackets is what the server offers: no password.
    assert "Permission denied (publickey)." in refused.err


def test_ssh_as_root(shared: Vm) -> None:
    key = shared.store.folder_of(shared.name) / "id_ed25519"
    refused = ssh(shared, *ANY_HOST, "-o", "IdentitiesOnly=yes", "-i", str(key).replace("%", "%%"), user="root")
    assert "Permission denied" in refused.err


def test_a_host_with_another_key_is_refused(shared: Vm) -> None:
    pinned = shared.store.folder_of(shared.name) / "known_hosts"
    right = pinned.read_text()
    other = "AAAAC3NzaC1lZDI1NTE5AAAAIBWzoFVPBqYaHDJu2Pu8tP+cTjPCGgBf5ERnrUGBUFiW"
    name, kind, _ = right.split()[:3]
    try:
        pinned.write_text(f"{name} {kind} {other}\n")
        refused = shared.ssh("true", code=255)
        assert "Host key verification failed" in refused.err
        native = shared.ssh("true", code=None, env={**shared.store.env, "MACHINE_NATIVE_SSH": "true"})
        assert native.code != 0
        assert "another host key" in native.err
    finally:
        pinned.write_text(right)
    assert shared.ssh("true").code == 0


def test_the_files_are_the_users_only(shared: Vm) -> None:
    home = shared.store.folder_of(shared.name)
    open_to_others = [
        path.name
        for path in home.rglob("*")
        if path.stat().st_mode & 0o077 and path.suffix not in {".pem", ".pub", ".sock"} and path.name != "console.log"
    ]
    assert home.stat().st_mode & 0o777 == 0o700
    assert {"id_ed25519", "key.pem", "server-key.pem", "ssh_host_ed25519_key", "seed.iso"}.isdisjoint(open_to_others)
    assert all((home / name).stat().st_mode & 0o077 == 0 for name in ("key.pem", "server-key.pem"))

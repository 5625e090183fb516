"""machine import-docker-machine, from a store as docker-machine 0.16 leaves it."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused
from real_sshd import USER, Server

from machine import orphans, run, ssh, store
from machine.docker import api
from machine.docker_machine import takeover
from machine.guest import checks, existing_host
from machine.ssh import keys
from machine.tls import certs, x509
from tests.fixture_types import Invoke


@pytest.fixture
def old(tmp_path: Path, sshd: Server, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its store with a certificate and the machines far (generic), vm (virtualbox) and url (none)."""
    folder = tmp_path / "user" / ".docker" / "machine"
    (folder / "certs").mkdir(parents=True)
    ca = x509.new_ca("theirs")
    client = x509.issue(ca, "client", usage="client")
    for name, raw in (("ca", ca.cert_pem()), ("cert", client.cert_pem()), ("key", client.key_pem())):
        (folder / "certs" / f"{name}.pem").write_bytes(raw)
    port = sshd.address.ssh_port
    put(folder, "far", "generic", {"IPAddress": "127.0.0.1", "SSHUser": USER, "SSHPort": port, "EnginePort": 2377})
    put(folder, "url", "none", {"IPAddress": "192.0.2.9:2376", "URL": "tcp://192.0.2.9:2376"})
    with sshd.authorized.open("a") as authorized:
        authorized.write((folder / "machines/far/id_rsa.pub").read_text())
    monkeypatch.setattr(takeover, "default", lambda: folder)
    return folder


def put(folder: Path, name: str, driver: str, settings: dict[str, object]) -> Path:
    home = folder / "machines" / name
    home.mkdir(parents=True)
    if driver != "none":
        keys.generate(home / "id_rsa", name)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            shutil.copy(folder / "certs" / file, home)
        (home / "server.pem").write_text("server")
        (home / "server-key.pem").write_text("server key")
    engine = {
        "ArbitraryFlags": ["log-driver=local"],
        "Env": ["A=b"],
        "InsecureRegistry": ["r.test:5000"],
        "Labels": ["stage=test", f"provider={driver}"],
        "RegistryMirror": [],
        "StorageDriver": "overlay2",
    }
    config = {
        "ConfigVersion": 3,
        "Driver": {"MachineName": name, "StorePath": "/home/gone", "SSHKeyPath": "/home/gone/id_rsa", **settings},
        "DriverName": driver,
        "HostOptions": {"EngineOptions": engine, "AuthOptions": {"ServerCertSANs": ["far.test"]}},
        "Name": name,
    }
    (home / "config.json").write_text(json.dumps(config))
    return home


def fingerprint(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mode} {path.stat().st_mtime_ns}"
        for path in files
    }


def test_they_are_taken_over_and_the_originals_stay(invoke: Invoke, old: Path) -> None:
    before = fingerprint(old)
    ended = invoke("import-docker-machine")
    assert ended.out == "far (generic): taken over as generic\nurl (none): taken over as none\n"
    assert fingerprint(old) == before
    made, folder = store.load("far"), store.folder_of("far")
    assert made.ssh_user == USER
    assert made.tls_sans == ("far.test",)
    assert made.engine.labels == ("stage=test",)
    assert made.engine.options == ("log-driver=local", "storage-driver=overlay2")
    assert (folder.ca.read_bytes(), folder.server_cert.read_text()) == ((old / "certs/ca.pem").read_bytes(), "server")
    assert folder.ssh_key.stat().st_mode & 0o777 == 0o600
    assert invoke("url", "far", "--json").code == 0
    assert invoke("url", "far").out == "tcp://127.0.0.1:2377\n"
    assert invoke("url", "url").out == "tcp://192.0.2.9:2376\n"
    assert (store.folder_of("url").ca).read_bytes() == (old / "certs/ca.pem").read_bytes()
    assert invoke("ssh", "far", "echo", "in").out == "in\n"
    assert invoke("status", "far").out == "Running\n"


def test_a_second_time_takes_what_is_new(invoke: Invoke, old: Path) -> None:
    invoke("import-docker-machine", "-q", "-m", "url")
    assert store.names() == ["url"]
    ended = invoke("import-docker-machine", "--json")
    found = {one["name"]: one["error"] for one in json.loads(ended.out)}
    assert found == {"far": None, "url": 'Docker machine "url" already exists'}
    assert ended.code == 1
    assert store.names() == ["far", "url"]


def test_one_of_virtualbox_is_reached_by_its_own_address(invoke: Invoke, old: Path, vboxmanage: Scripted) -> None:
    put(old, "vm", "virtualbox", {"IPAddress": "192.168.99.100", "SSHUser": "docker", "SSHPort": 40123})
    found = dict(takeover.find(old))["vm"]
    assert isinstance(found, takeover.ImportableMachine)
    assert (found.address.url, found.address.ssh_port) == ("tcp://192.168.99.100:2376", 22)
    assert "vm (virtualbox): would be taken over as generic" in invoke("import-docker-machine", "--dry-run").lines
    assert store.names() == []


@pytest.fixture
def vboxmanage(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A VirtualBox that knows of no machine."""
    scripted = Scripted()
    scripted.answer("showvminfo", refused("Could not find a registered machine", "VBOX_E_OBJECT_NOT_FOUND"))
    for module in (takeover, orphans, run):
        monkeypatch.setattr(module, "run", scripted)
    monkeypatch.setattr("machine.drivers.virtualbox.vboxmanage.find", lambda: "VBoxManage")
    return scripted


@pytest.fixture
def vm(old: Path, vboxmanage: Scripted, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the machine vm of VirtualBox, which runs. Nothing listens at its address: that is pretended."""
    put(
        old, "vm", "virtualbox", {"IPAddress": "192.168.99.100", "SSHUser": "docker", "SSHPort": 40123, "UIType": "sdl"}
    )
    settings = old / "machines" / "vm" / "vm" / "vm.vbox"
    settings.parent.mkdir()
    settings.write_text(f'<VirtualBox xmlns="http://www.virtualbox.org/"><Machine uuid="{{{UUID}}}"/></VirtualBox>')
    vboxmanage.answer("showvminfo", info("running", config=str(settings)))
    monkeypatch.setattr(existing_host, "pin", lambda folder, *_: folder.known_hosts.write_text("pinned"))
    for module, name in ((api.Client, "ping"), (ssh, "ready")):
        monkeypatch.setattr(module, name, lambda *_, **__: True)
    return settings.parent


def test_one_of_virtualbox_can_be_switched_on_and_off(invoke: Invoke, vm: Path, vboxmanage: Scripted) -> None:
    before = fingerprint(vm.parent)
    config = str(vm / "vm.vbox")
    ended = invoke("import-docker-machine", "-m", "vm")
    assert (ended.out, ended.err) == ("vm (virtualbox): taken over as virtualbox-adopted\n", "")
    made = store.load("vm")
    assert (made.uuid, made.ssh_user, made.options["ui_type"]) == (UUID, "docker", "headless")
    assert invoke("status", "vm").out == "Running\n"
    assert invoke("url", "vm").out == "tcp://192.168.99.100:2376\n"
    off = info("poweroff", config=config)
    # Asked before it is stopped, before Docker is asked about its containers, and before the button is pressed.
    vboxmanage.answer("showvminfo", *[info("running", config=config)] * 3, off)
    assert invoke("stop", "vm").out == 'Machine "vm" was stopped.\n'
    assert vboxmanage.said("controlvm") == [["controlvm", UUID, "acpipowerbutton"]]
    assert invoke("start", "vm").out == 'Machine "vm" was started.\n'
    assert vboxmanage.said("startvm") == [["startvm", UUID, "--type", "headless"]]
    assert (store.folder_of("vm").server_cert.read_text(), store.folder_of("vm").known_hosts.read_text()) == (
        "server",
        "pinned",
    )
    assert fingerprint(vm.parent) == before


def test_rm_leaves_the_original_and_says_so(invoke: Invoke, vm: Path, vboxmanage: Scripted) -> None:
    before = fingerprint(vm.parent)
    invoke("import-docker-machine", "-q", "-m", "vm")
    asked = invoke("rm", "vm")
    assert (
        "WARNING: vm is only removed from the store: the host, or the virtual machine, stays as it is.\n" in asked.out
    )
    assert "deletes the virtual machines" not in asked.out
    vboxmanage.calls.clear()
    ended = invoke("rm", "-y", "vm")
    assert "vm: note: its virtual machine stays in VirtualBox: machine didn't make it" in ended.err
    assert store.names() == []
    assert vboxmanage.calls == []
    invoke("import-docker-machine", "-q", "-m", "vm")
    store.folder_of("vm").config.write_text("{")
    invoke("rm", "-f", "vm")
    assert not vboxmanage.said("unregistervm")
    assert fingerprint(vm.parent) == before


def test_its_certificates_are_not_ours(invoke: Invoke, vm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke("import-docker-machine", "-q", "-m", "vm")
    monkeypatch.setattr(api.Client, "version", lambda _: "19.03")
    monkeypatch.setattr(checks, "look", lambda *_: iter(()))
    said = json.loads(invoke("doctor", "--repair", "--json").out)
    assert [one["text"] for one in said if one["check"] == "vm"] == [
        "Docker 19.03 answers on tcp://192.168.99.100:2376"
    ]
    assert not [one for one in said if one["check"] == "certificates" and one["level"] != "ok"]
    invoke("regenerate-certs", "-f", "vm")
    assert store.folder_of("vm").server_cert.read_text() == "server"
    shutil.copy(store.folder_of("vm").ca, store.folder_of("vm").cert)
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    monkeypatch.setattr(certs, "ends", lambda path: soon if path == store.folder_of("vm").cert else None)
    (told,) = [one for one in json.loads(invoke("doctor", "--json").out) if one["check"] == "certificates"]
    assert told["hint"] == "renew it where it was made, and take the machine over again"


@pytest.mark.parametrize("how", ["no VBoxManage", "no VM"])
def test_one_whose_vm_is_gone_is_a_host(
    invoke: Invoke, vm: Path, vboxmanage: Scripted, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "no VM":
        vboxmanage.answer("showvminfo", refused("Could not find a registered machine", "VBOX_E_OBJECT_NOT_FOUND"))
        why = "its virtual machine is no longer registered in VirtualBox"
    else:
        monkeypatch.setattr("machine.drivers.virtualbox.vboxmanage.find", lambda: None)
        why = "VBoxManage was not found"
    for words in (["--dry-run"], []):
        ended = invoke("import-docker-machine", "-m", "vm", *words)
        assert f"vm: note: {why}: it can't be started or stopped from here" in ended.err
        assert ended.out.endswith("taken over as generic\n")
    assert store.load("vm").driver == "generic"
    invoke("rm", "-y", "vm")
    (told,) = json.loads(invoke("import-docker-machine", "-m", "vm", "--json").out)
    assert told["note"].startswith(why)


def test_one_that_does_not_run_or_is_damaged_hides_no_other(invoke: Invoke, old: Path) -> None:
    (put(old, "bad", "generic", {}) / "config.json").write_text('{"ConfigVersion": 3, "Dri')
    put(old, "off", "generic", {"IPAddress": "127.0.0.1", "SSHPort": 1})
    put(old, "new", "virtualbox", {"IPAddress": ""})
    put(old, "a_b", "none", {"URL": "tcp://h"})
    ended = invoke("import-docker-machine")
    assert ended.code == 1
    assert store.names() == ["far", "url"]
    assert "Error: bad: " in ended.err
    assert "Error: off: 127.0.0.1:1 shows no ssh-ed25519 key" in ended.err
    assert "Next: docker-machine start new" in ended.err
    assert 'Error: a_b: invalid name "a_b"' in ended.err


def test_a_path_that_is_given(invoke: Invoke, old: Path, tmp_path: Path) -> None:
    shutil.move(old, tmp_path / "moved")
    assert invoke("import-docker-machine").code == 1
    assert invoke("import-docker-machine", "-q", tmp_path / "moved").code == 0
    assert store.names() == ["far", "url"]

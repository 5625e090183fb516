from pathlib import Path

import pytest

from machine import store as stores
from machine.guest import credentials, seed
from machine.instance import Instance
from machine.spec import Address, Machine
from machine.tls import authorities, x509


@pytest.fixture(autouse=True)
def anchors(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's administrator puts CAs."""
    monkeypatch.setattr(authorities, "FOLDERS", (tmp_path / "anchors", tmp_path / "absent"))
    (tmp_path / "anchors").mkdir()
    return tmp_path / "anchors"


def ca(name: str) -> str:
    return x509.new_ca(name).cert_pem().decode()


def test_each_certificate_is_found_once(anchors: Path, store: Path) -> None:
    one, two, three = ca("one"), ca("two"), ca("three")
    (anchors / "corp root (2024).crt").write_text(f"# a comment\n{one}\n{two}")
    (anchors / "again.pem").write_text(one)
    (anchors / "notes.txt").write_text(three)
    (store / "ca").mkdir()
    (store / "ca" / "mine.pem").write_text(three.replace("\n", "\r\n"))
    found = dict(authorities.extra())
    assert found == {"again-0": one, "corp-root-2024-0": two, "mine-0": three}


def test_what_is_no_certificate_is_left_out(anchors: Path) -> None:
    (anchors / "der.crt").write_bytes(b"\x30\x82\xff\x00")
    (anchors / "cut.crt").write_text(ca("cut")[:200])
    (anchors / "bad.crt").write_text("-----BEGIN CERTIFICATE-----\nA===\n-----END CERTIFICATE-----\n")
    (anchors / "gone.crt").symlink_to("nowhere")
    assert authorities.extra() == ()


def test_they_reach_the_guest_at_create_and_at_each_start(anchors: Path, store: Path) -> None:
    machine = Machine("dev", "fake", "u", "", "", 512, 1, 1024, tls=False, address=Address("127.77.0.2"))
    folder = stores.folder_of("dev")
    folder.path.mkdir(parents=True)
    credentials.prepare(Instance(machine, folder).driver)
    assert not [name for name in seed.read(folder.seed) if name.startswith("machineos/ca/")]
    (anchors / "corp.crt").write_text(corp := ca("corp"))
    credentials.prepare(Instance(machine, folder).driver)
    assert seed.read(folder.seed)["machineos/ca/corp-0.crt"] == corp
    assert folder.ssh_config.read_text().startswith("Host machine-dev\n  HostName 127.77.0.2\n")


def test_proxies_reach_the_guest_at_each_start(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("dev", "fake", "u", "", "", 512, 1, 1024, tls=False, address=Address("127.77.0.2"))
    folder = stores.folder_of("dev")
    folder.path.mkdir(parents=True)
    monkeypatch.setenv("https_proxy", "http://localhost:3128")
    credentials.prepare(Instance(machine, folder).driver)
    assert "https_proxy=http://10.0.2.2:3128\n" in seed.read(folder.seed)["machineos/docker.env"]
    monkeypatch.setenv("https_proxy", "http://proxy.test:1")
    credentials.prepare(Instance(machine, folder).driver)
    assert "https_proxy=http://proxy.test:1\n" in seed.read(folder.seed)["machineos/environment"]

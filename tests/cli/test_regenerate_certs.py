"""machine regenerate-certs: what changes, what doesn't, and what a running machine gets."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_host import FakeHost, stand_in

from machine import instance, paths, store
from machine.docker import api
from machine.guest import credentials, seed
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.tls import certs
from tests.fixture_types import Add, Invoke, Made


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A running machineos behind every machine."""
    fake = FakeHost("machineos")
    stand_in(monkeypatch, fake)
    monkeypatch.setattr(api.Client, "ping", lambda _: True)
    return fake


@pytest.fixture
def made(add: Add, store: Path) -> Made:
    """A machine with all its keys and certificates."""

    def make(name: str = "default", state: str = "Stopped", **fields: object) -> MachineFolder:
        machine = add(name, state=state, uuid=name, **fields)
        folder = MachineFolder(store / "machines" / name)
        credentials.prepare(Instance(machine, folder).driver)
        return folder

    return make


def test_a_running_machine_gets_its_certificate_and_nothing_else_changes(
    invoke: Invoke, made: Made, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(state="Running")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")  # of this shell, and not of the one that started it
    ended = invoke("regenerate-certs", "-f", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    changed = {name for name, raw in before.items() if (folder / name).read_bytes() != raw}
    assert changed == {"server.pem", "server-key.pem"}
    expected = {
        name.removeprefix("machineos/"): text
        for name, text in seed.read(folder.seed).items()
        if name.startswith("machineos/")
    }
    expected |= {"tls/server.pem": folder.server_cert.read_text(), "tls/server-key.pem": folder.server_key.read_text()}
    assert host.applied == expected


def test_a_stopped_machine_gets_it_at_its_next_start(invoke: Invoke, made: Made, host: FakeHost) -> None:
    folder = made()
    before = folder.server_cert.read_bytes()
    assert invoke("regenerate-certs", "-f").out == "Regenerated TLS certificates of default\n"
    assert folder.server_cert.read_bytes() != before
    assert host.ran == []


def test_a_new_client_is_shared_by_all_and_leaves_the_others_servers(
    invoke: Invoke, made: Made, host: FakeHost
) -> None:
    one, two = made("one"), made("two")
    server, client = two.server_cert.read_bytes(), two.cert.read_bytes()
    invoke("regenerate-certs", "-f", "--client-certs", "one")
    assert one.cert.read_bytes() == two.cert.read_bytes() != client
    assert two.server_cert.read_bytes() == server


def test_a_new_ca_is_for_all(invoke: Invoke, made: Made, host: FakeHost) -> None:
    folders = [made("one"), made("two", state="Running"), made("plain", tls=False)]
    before = [folder.ca.read_bytes() for folder in folders[:2]]
    assert invoke("regenerate-certs", "--ca", "one").code == 2
    ended = invoke("regenerate-certs", "--ca", "-f", "--json")
    assert [found["name"] for found in json.loads(ended.out)] == ["one", "two"]
    after = [folder.ca.read_bytes() for folder in folders[:2]]
    assert after[0] == after[1] != before[0]
    assert host.applied["tls/ca.pem"] == folders[1].ca.read_text()
    assert not certs.renew_if_due(
        paths.store() / "certs", folders[0], names=["one"], addresses=[instance.load("one").address.host]
    )


def test_nothing_is_done_without_a_yes(invoke: Invoke, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made().server_cert.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    ended = invoke("regenerate-certs")
    assert (ended.code, "regenerate-certs -f" in ended.err) == (2, True)
    assert made("b").server_cert.exists()
    assert MachineFolder(paths.store() / "machines/default").server_cert.read_bytes() == before


def test_the_end_of_a_certificate_is_read_quickly(made: Made, tmp_path: Path) -> None:
    folder = made()
    for path in (folder.server_cert, folder.cert, folder.ca):
        assert certs.ends(path) == certs.expiry(path)
    assert certs.ends(folder.server_key) is None
    assert certs.ends(tmp_path / "absent") is None
    far = datetime.now(UTC) + timedelta(days=3000)
    end = certs.ends(folder.ca)
    assert end
    assert end > far


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("server.pem", "machine regenerate-certs default"),
        ("cert.pem", "machine regenerate-certs --client-certs default"),
        ("ca.pem", "machine regenerate-certs --ca"),
    ],
)
def test_ls_marks_certificates_that_end_within_30_days(
    invoke: Invoke, made: Made, monkeypatch: pytest.MonkeyPatch, file: str, command: str
) -> None:
    folder = made()
    assert json.loads(invoke("ls", "--json").out)[0]["warning"] is None
    real = certs.ends
    soon = datetime.now(UTC) + timedelta(days=12, hours=1)
    monkeypatch.setattr(certs, "ends", lambda path: soon if path == folder / file else real(path))
    told = f"the certificate {file} expires in 12 days: {command}"
    assert json.loads(invoke("ls", "--json").out)[0]["warning"] == told
    assert invoke("ls").lines[1].endswith(told)
    soon = datetime.now(UTC) - timedelta(days=1)
    assert f"{file} has expired" in invoke("ls").out


def test_a_start_renews_what_is_due(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made()
    machine = store.load("default")
    before = folder.server_cert.read_bytes()
    credentials.prepare(Instance(machine, folder).driver)
    assert folder.server_cert.read_bytes() == before
    monkeypatch.setattr(certs, "RENEW_DAYS", 100_000)
    monkeypatch.setattr(certs.renew_if_due, "__kwdefaults__", {"days": 100_000})
    credentials.prepare(Instance(machine, folder).driver)
    assert folder.server_cert.read_bytes() != before
    assert "machineos/tls/server.pem" in seed.read(folder.seed)
    assert seed.read(folder.seed)["machineos/tls/server.pem"] == folder.server_cert.read_text()

"""Options of docker-machine's that stand for something else here, so that its scripts go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from machine import store
from machine.docker import reconfigure
from machine.tls import x509
from tests.fixture_types import Add, Invoke


def test_storage_driver(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconfigure, "check_storage", lambda *_: None)
    assert invoke("create", "-q", "--engine-storage-driver", "vfs", "--engine-opt", "mtu=1400", "dev").code == 0
    assert store.load("dev").engine.options == ("mtu=1400", "storage-driver=vfs")
    printed = invoke("inspect", "-f", "{{.HostOptions.EngineOptions.StorageDriver}}", "dev").out
    assert printed == "vfs\n"


def test_a_ca_of_the_users_own(invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    ca = x509.new_ca("mine")
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem())
    (tmp_path / "ca-key.pem").write_bytes(ca.key_pem())
    words: list[str | Path] = ["--tls-ca-cert", tmp_path / "ca.pem", "--tls-ca-key", tmp_path / "ca-key.pem"]
    assert invoke(*words, "create", "-q", "dev").code == 0
    assert store.folder_of("dev").ca.read_bytes() == ca.cert_pem()


def test_native_ssh(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    from machine import ssh

    monkeypatch.setattr(os, "environ", dict(os.environ))
    add(state="Running")
    seen = []
    monkeypatch.setattr(ssh, "interactive", lambda *_, **__: seen.append(ssh.is_native()) or 0)
    invoke("ssh", "default", "true")
    invoke("--native-ssh", "ssh", "default", "true")
    assert seen == [False, True]


def test_options_without_a_meaning_are_taken(invoke: Invoke, add: Add) -> None:
    add()
    ended = invoke("--github-api-token", "x", "--bugsnag-api-token", "no-report", "ls", "--json")
    assert json.loads(ended.out)[0]["name"] == "default"

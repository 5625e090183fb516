"""machine upgrade and provision of machines that boot machineos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_fixtures import add_image
from fake_host import FakeHost, stand_in

from machine import lifecycle, store
from machine.docker import api
from machine.guest import seed
from machine.paths import Image, MachineFolder
from tests.fixture_types import Invoke


@pytest.fixture
def newer(dev: MachineFolder, tmp_path: Path) -> str:
    return add_image(tmp_path, "machineos", b"a newer one", "2030-01-01").digest


def test_a_running_machine_runs_with_the_newest(invoke: Invoke, dev: MachineFolder, newer: str) -> None:
    old = store.load("dev").image
    ended = invoke("upgrade", "dev")
    assert ended.out == f"dev: machineos ({old[:12]}) -> ({newer[:12]})\n"
    assert store.load("dev").image == newer
    assert invoke("status", "dev").out == "Running\n"
    assert invoke("upgrade", "dev").out == "dev: it is up to date\n"
    assert json.loads(invoke("upgrade", "--json", "dev").out) == [{"name": "dev", "upgraded": ""}]


def test_one_that_is_off_stays_off(invoke: Invoke, dev: MachineFolder, newer: str) -> None:
    invoke("stop", "-q", "dev")
    assert invoke("upgrade", "-q", "dev").code == 0
    assert store.load("dev").image == newer
    assert invoke("status", "dev").out == "Stopped\n"


def test_one_whose_new_image_fails_gets_its_old_one_back(
    invoke: Invoke, dev: MachineFolder, newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.load("dev").image
    monkeypatch.setattr(api.Client, "ping", lambda client: client.machine.image == old)
    ended = invoke("upgrade", "-q", "--timeout", "1", "dev")
    assert (ended.code, "it runs with its old image again" in ended.err) == (1, True)
    assert store.load("dev").image == old
    assert invoke("status", "dev").out == "Running\n"


def test_a_damaged_image_is_found_before_anything_is_stopped(
    invoke: Invoke, dev: MachineFolder, newer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image(newer).file.write_bytes(b"changed")
    monkeypatch.setattr(lifecycle, "stop", pytest.fail)
    assert invoke("upgrade", "dev").code == 1
    assert invoke("status", "dev").out == "Running\n"


def test_a_paused_machine(invoke: Invoke, dev: MachineFolder, newer: str, vms: Path) -> None:
    (vms / "dev").write_text("Paused")
    assert invoke("upgrade", "dev").code == 2
    assert store.load("dev").image != newer


def test_provision_sends_what_has_changed(invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost("machineos")
    stand_in(monkeypatch, host)
    assert invoke("provision", "dev").out == "dev: there was nothing to change\n"
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    assert json.loads(invoke("provision", "--json", "dev").out) == [
        {"name": "dev", "changed": ["sent another docker.env", "sent another environment"]}
    ]
    assert host.applied == {
        name.removeprefix("machineos/"): text
        for name, text in seed.read(dev.seed).items()
        if name.startswith("machineos/")
    }
    assert "http_proxy=http://proxy.test:3128\n" in host.applied["docker.env"]


def test_provision_needs_a_machine_that_runs(invoke: Invoke, dev: MachineFolder) -> None:
    invoke("stop", "-q", "dev")
    ended = invoke("provision", "dev")
    assert (ended.code, "machine start dev" in ended.err) == (1, True)


def test_an_unknown_system(invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost("machineos")
    host.files["/etc/os-release"] = 'ID=plan9\nPRETTY_NAME="Plan 9 from Bell Labs"\n'
    stand_in(monkeypatch, host)
    ended = invoke("provision", "-q", "dev")
    assert ended.code == 1
    assert "unsupported distribution: Plan 9 from Bell Labs" in ended.err
    assert "nothing was changed before" in ended.err
    assert "--driver none" in ended.err

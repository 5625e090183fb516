"""An image for other processors is kept, and is never what a machine of this host boots."""

from __future__ import annotations

import json
from pathlib import Path

import machine_fake
import pytest
from tiny_iso import ABOUT, iso

from machine import paths, resources, store
from machine.errors import NoSuchImage
from machine.images import cache, machineos
from machine.paths import Image
from tests.fixture_types import Invoke

HERE = resources.architecture()
OTHER = "aarch64" if HERE == "x86_64" else "x86_64"


def build(folder: Path, architecture: str, version: str = "0.1") -> Image:
    path = iso(folder / f"{architecture}-{version}.iso", {**ABOUT, "architecture": architecture, "version": version})
    return machineos.add(path)


def test_it_does_not_become_the_current_one(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    ours, other = build(tmp_path, HERE), build(tmp_path, OTHER)
    assert cache.current("machineos").digest == ours.digest
    assert cache.current("machineos", OTHER).digest == other.digest
    assert OTHER in invoke("image", "ls").out
    assert invoke("create", "-q", "dev").code == 0
    assert store.load("dev").image == ours.digest
    assert cache.find(other.digest).architecture == OTHER


def test_it_is_not_booted_when_it_is_asked_for(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    other = build(tmp_path, OTHER)
    for image in (other.digest[:12], str(tmp_path / f"{OTHER}-0.1.iso")):
        ended = invoke("create", "-q", "--image", image, "dev")
        words = f"is for {OTHER} processors, and the machine's host has {HERE}"
        assert (ended.code, words in ended.err) == (3, True)
        assert f"machine iso build --arch {HERE}" in ended.err
    assert store.names() == []


def test_a_cache_with_nothing_else(invoke: Invoke, store: Path, tmp_path: Path) -> None:
    build(tmp_path, OTHER)
    with pytest.raises(NoSuchImage, match=f"for {HERE} processors"):
        cache.current("machineos")
    assert not machineos.is_cached()


def test_what_an_earlier_version_wrote(vms: Path, tmp_path: Path) -> None:
    """There the last one that was built was the current one."""
    other = build(tmp_path, OTHER)
    (paths.images() / "machineos").write_text(f"{other.digest}\n", encoding="utf-8")
    with pytest.raises(NoSuchImage):
        cache.current("machineos")
    ours = build(tmp_path, HERE)
    assert cache.current("machineos").digest == ours.digest


def test_a_store_that_two_hosts_share(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home folder on a network mount: the machine was made on the other one."""
    build(tmp_path, HERE)
    assert invoke("create", "-q", "dev").code == 0
    invoke("stop", "-q", "dev")
    monkeypatch.setattr("platform.machine", lambda: OTHER)
    ended = invoke("start", "dev")
    assert (ended.code, f"is for {HERE} processors" in ended.err) == (3, True)


def test_the_host_of_the_hypervisor_counts(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with libvirt on another host."""
    build(tmp_path, HERE)
    other = build(tmp_path, OTHER)
    monkeypatch.setattr(machine_fake.Fake, "architecture", lambda self: OTHER, raising=False)
    assert invoke("create", "-q", "dev").code == 3
    assert invoke("create", "-q", "--image", other.digest, "dev").code == 0
    about = json.loads(other.about.read_text(encoding="utf-8"))
    other.about.write_text(json.dumps({**about, "created": "2024-01-01"}), encoding="utf-8")
    newer = build(tmp_path, OTHER, "0.2")
    assert invoke("upgrade", "dev").code == 0
    assert store.load("dev").image == newer.digest


def test_a_machine_of_other_processors_is_not_imported(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, HERE)
    assert invoke("create", "-q", "dev").code == 0
    (store.folder_of("dev") / "disk.qcow2").write_bytes(b"disk")
    invoke("stop", "-q", "dev")
    assert invoke("export", "-q", "dev", tmp_path / "f").code == 0
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("platform.machine", lambda: OTHER)
    ended = invoke("import", tmp_path / "f")
    assert (ended.code, f'the machine "dev" is for {HERE} processors, and this host has {OTHER}' in ended.err) == (
        3,
        True,
    )
    assert store.names() == []


def test_both_newest_ones_survive_a_prune(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    kept = {build(tmp_path, HERE, "0.2").digest, build(tmp_path, OTHER, "0.2").digest}
    assert "Removed" in invoke("image", "prune").out  # what the fixture has put there
    assert {about.digest for about in cache.cached()} == kept

"""Machines with other processors than this host's: only where they are asked for, and a driver emulates them."""

from __future__ import annotations

import json
from pathlib import Path

import machine_fake
import pytest
from tiny_iso import ABOUT, iso

from machine import paths, resources, store
from machine.errors import NoSuchImage
from machine.images import cache, catalog, machineos
from machine.paths import Image
from machine.progress import Silent
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
        words = f"is for {OTHER} processors, and the machine has {HERE}"
        assert (ended.code, words in ended.err) == (3, True)
        assert f"machine iso build --arch {HERE}" in ended.err
    assert store.names() == []


@pytest.fixture
def emulates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver fake emulates the other processors."""
    monkeypatch.setattr(machine_fake.Fake, "emulates", True)


ALIAS = {"x86_64": "amd64", "aarch64": "ARM64"}[OTHER]


@pytest.mark.parametrize("way", ["option", "variable", "file"])
def test_it_is_chosen(
    invoke: Invoke, vms: Path, tmp_path: Path, emulates: None, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    build(tmp_path, HERE)
    other = build(tmp_path, OTHER)
    if way == "variable":
        monkeypatch.setenv("MACHINE_ARCH", ALIAS)
    elif way == "file":
        (paths.store() / "config.toml").write_text(f'arch = "{ALIAS}"\n', encoding="utf-8")
    assert invoke("create", "-q", *(["--arch", ALIAS] if way == "option" else []), "dev").code == 0
    assert (store.load("dev").image, store.load("dev").architecture) == (other.digest, OTHER)
    assert json.loads(invoke("inspect", "dev").out)["Architecture"] == OTHER
    assert invoke("ls", "--format", "{{.Arch}}").out == f"{OTHER}\n"
    assert json.loads(invoke("ls", "--json").out)[0]["arch"] == OTHER
    invoke("stop", "-q", "dev")
    assert invoke("start", "dev").code == 0


def test_this_hosts_own_may_be_named(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    ours = build(tmp_path, HERE)
    assert invoke("create", "-q", "--arch", HERE, "dev").code == 0
    assert store.load("dev").image == ours.digest
    assert json.loads(invoke("inspect", "dev").out)["Architecture"] == HERE


def test_a_name_that_no_processor_has(invoke: Invoke, vms: Path) -> None:
    ended = invoke("create", "--arch", "riscv64", "dev")
    assert (ended.code, 'invalid processor "riscv64": give x86_64 or aarch64 (amd64 or arm64)' in ended.err) == (
        2,
        True,
    )


def test_a_driver_that_does_not_emulate(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    build(tmp_path, OTHER)
    ended = invoke("create", "--arch", OTHER, "dev")
    assert ended.code == 3
    assert f"the driver fake can't run a machine with {OTHER} processors here" in ended.err
    assert f"machine create --driver qemu --arch {OTHER}" in ended.err
    ended = invoke("create", "--driver", "none", "--url", "tcp://127.0.0.1:1", "--arch", OTHER, "dev")
    assert (ended.code, f"the driver none can't run a machine with {OTHER} processors" in ended.err) == (3, True)
    assert store.names() == []


def test_its_image_is_missing(invoke: Invoke, vms: Path, tmp_path: Path, emulates: None) -> None:
    build(tmp_path, HERE)
    ended = invoke("create", "--arch", OTHER, "dev")
    assert (ended.code, f"machineos for {OTHER} processors isn't in the cache" in ended.err) == (3, True)
    assert f"machine iso build --arch {OTHER}" in ended.err
    ended = invoke("image", "pull", "--arch", OTHER, "machineos")
    assert (ended.code, f"machine iso build --arch {OTHER}" in ended.err) == (1, True)


def test_an_image_of_others_shows_the_way(invoke: Invoke, vms: Path, tmp_path: Path, emulates: None) -> None:
    other = build(tmp_path, OTHER)
    ended = invoke("create", "--image", other.digest[:12], "dev")
    assert (ended.code, f"machine create --arch {OTHER}" in ended.err) == (3, True)
    assert invoke("create", "-q", "--image", other.digest[:12], "--arch", OTHER, "dev").code == 0


def test_one_of_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [entry.source.url for entry in catalog.entries(HERE)] != [
        entry.source.url for entry in catalog.entries(OTHER)
    ]
    seen: list[str] = []
    monkeypatch.setattr(catalog, "entries", lambda architecture="": seen.append(architecture) or [])
    with pytest.raises(NoSuchImage):
        catalog.obtain("debian-13", Silent(), architecture=OTHER)
    assert seen == [OTHER]


def test_a_machine_of_other_processors_moves_where_they_are_emulated(
    invoke: Invoke, vms: Path, tmp_path: Path, emulates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build(tmp_path, OTHER)
    assert invoke("create", "-q", "--arch", OTHER, "dev").code == 0
    (store.folder_of("dev") / "disk.qcow2").write_bytes(b"disk")
    invoke("stop", "-q", "dev")
    assert invoke("export", "-q", "dev", tmp_path / "f").code == 0
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "elsewhere"))
    assert invoke("import", "-q", tmp_path / "f").code == 0
    assert (store.load("dev").architecture, store.load("dev").image) == (OTHER, other.digest)
    # On a host of its own kind it isn't emulated any more.
    monkeypatch.setattr("platform.machine", lambda: OTHER)
    assert invoke("import", "-q", "--name", "dev2", tmp_path / "f").code == 0
    assert store.load("dev2").architecture == ""


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
    monkeypatch.setattr(machine_fake.Fake, "host_architecture", lambda self: OTHER, raising=False)
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

"""machine image, and create --image with names, files and URLs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import machine_fake
import pytest
from disk_files import qcow2
from web_server import Quiet, serving

from machine import store
from machine.guest import provision
from machine.images import cache, catalog, downloads
from machine.images.downloads import Source
from tests.fixture_types import Invoke

DISK = qcow2()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """What a publisher has: its folder is served over HTTP."""
    file = tmp_path / "www" / "disk-1.qcow2"
    file.parent.mkdir()
    file.write_bytes(DISK)
    return file


@pytest.fixture
def url(disk: Path) -> Iterator[str]:
    class Handler(Quiet, SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(disk.parent))

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/disk-1.qcow2"


@pytest.fixture
def named(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of the catalog, with a digest of the publisher's that isn't the one we use."""
    entry = catalog.Entry("test-1", "test", "qcow2", Source(url, "sha512", hashlib.sha512(DISK).hexdigest()))
    monkeypatch.setattr(catalog, "entries", lambda architecture=None: [entry])
    return "test-1"


def test_pull_of_a_name_fetches_once(invoke: Invoke, store: Path, named: str, disk: Path) -> None:
    about = json.loads(invoke("image", "pull", "--json", named).out)
    assert (about["name"], about["format"], about["digest"]) == (named, "qcow2", hashlib.sha256(DISK).hexdigest())
    assert json.loads(invoke("image", "catalog", "--json").out)[0]["cached"]
    disk.unlink()
    ended = invoke("image", "pull", named)
    assert (ended.code, ended.out.split()[0]) == (0, named)
    assert about["digest"] in invoke("image", "ls", "-q").lines
    assert downloads.left_over(store / "images") == []


def test_a_url_needs_a_digest_that_is_right(invoke: Invoke, store: Path, url: str) -> None:
    assert invoke("image", "pull", url).code == 2
    ended = invoke("image", "pull", f"{url}#sha256={'0' * 64}")
    assert (ended.code, "has another digest than expected" in ended.err) == (1, True)
    assert invoke("image", "ls", "-q").out == ""
    assert invoke("image", "pull", "-q", f"{url}#sha256={hashlib.sha256(DISK).hexdigest()}").code == 0


def test_a_file_that_is_no_image(invoke: Invoke, store: Path, tmp_path: Path) -> None:
    (tmp_path / "page.qcow2").write_text("<html>not found</html>")
    ended = invoke("image", "pull", tmp_path / "page.qcow2")
    assert (ended.code, "is neither a disk" in ended.err) == (1, True)
    assert invoke("image", "pull", tmp_path / "absent.img").code == 1


def test_offline_fetches_nothing(invoke: Invoke, vms: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_fake.Fake, "cloud_images", True)
    monkeypatch.setattr(provision, "provision", lambda *_: [])
    ended = invoke("create", "-q", "--offline", "--image", named, "dev")
    assert (ended.code, f"machine image pull {named}" in ended.err) == (3, True)
    assert invoke("create", "-q", "--image", named, "dev").code == 0
    assert store.load("dev").image == hashlib.sha256(DISK).hexdigest()
    monkeypatch.setenv("MACHINE_OFFLINE", "1")
    assert invoke("create", "-q", "--image", named, "dev2").code == 0


def test_a_driver_that_boots_ours_only_says_so(invoke: Invoke, vms: Path, named: str) -> None:
    ended = invoke("create", "-q", "--image", named, "dev")
    assert (ended.code, "the driver fake boots machineos only" in ended.err) == (3, True)
    assert store.names() == []


def test_an_unknown_name_tells_which_there_are(invoke: Invoke, vms: Path, named: str) -> None:
    ended = invoke("create", "--image", "plan9", "dev")
    assert (ended.code, "the catalog has test-1" in ended.err) == (3, True)


def test_prune(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    from fake_fixtures import add_image

    invoke("create", "-q", "dev")
    used = store.load("dev").image
    old = add_image(tmp_path, "machineos", b"in between", "2025-01-01").digest
    new = add_image(tmp_path, "machineos", b"the newest", "2026-01-01").digest
    (tmp_path / "store" / "images" / ".part-0123").write_text("half")
    told = json.loads(invoke("image", "prune", "--dry-run", "--json").out)
    assert told["images"] == [f"machineos {old}"]
    assert len(told["downloads"]) == 1
    ended = invoke("image", "prune")
    assert f"Removed machineos {old[:12]}" in ended.out
    assert sorted(about.digest for about in cache.cached()) == sorted([used, new])
    assert invoke("image", "prune").out == ""


def test_a_machine_that_cant_be_read_may_boot_any_image(invoke: Invoke, vms: Path, tmp_path: Path) -> None:
    from fake_fixtures import add_image

    invoke("create", "-q", "dev")
    used = store.load("dev").image
    add_image(tmp_path, "machineos", b"the newest", "2026-01-01")
    store.folder_of("dev").config.write_text("{", encoding="utf-8")
    assert invoke("image", "prune").out == ""
    ended = invoke("iso", "rm", used[:12])
    assert (ended.code, "is used by dev (can't be read)" in ended.err) == (2, True)
    assert invoke("iso", "rm", "-f", used[:12]).code == 0


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_catalog(architecture: str) -> None:
    """Debian, Ubuntu, Fedora and Alpine for both processors, each with its publisher's digest."""
    found = {entry.name.partition("-")[0]: entry for entry in catalog.entries(architecture)}
    assert found.keys() == {"alpine", "debian", "fedora", "ubuntu"}
    assert all(entry.source.url.startswith("https://") and entry.user for entry in found.values())


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.qcow2", "a"),
        ("a b?x=1", "a-b"),
        ("..", "image"),
        ("../x.img", "x"),
        ("debian-12.raw?token=a/b", "debian-12"),
    ],
)
def test_a_name_for_what_was_fetched(name: str, stem: str) -> None:
    assert catalog._stem(name.rpartition("/")[2] if "?" not in name else name) == stem

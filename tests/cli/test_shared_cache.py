"""A cache of images that several stores share: none removes what another one's machines boot."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_fixtures import add_image

from machine import paths, store
from machine.images import cache, users
from tests.fixture_types import Invoke

Use = Callable[[str], Path]


@pytest.fixture
def use(vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Go on in another store, with the same cache of images."""
    monkeypatch.setenv("MACHINE_IMAGES_PATH", str(paths.images()))

    def use(name: str) -> Path:
        folder = tmp_path / name
        (folder / "fake").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("MACHINE_STORAGE_PATH", str(folder))
        return folder

    return use


@pytest.fixture
def old(invoke: Invoke, use: Use, tmp_path: Path) -> str:
    """The digest of an image that the machine `web` in the store `theirs` boots, and that isn't the newest any more.

    The store `ours` is the current one.
    """
    use("theirs")
    assert invoke("create", "-q", "web").code == 0
    digest = cache.current("machineos").digest
    add_image(tmp_path, "machineos", b"a newer one", "2026-01-01")
    use("ours")
    return digest


def test_prune_leaves_what_another_store_uses(invoke: Invoke, use: Use, old: str) -> None:
    assert f"web (in {use('theirs')})" in (use("ours"), invoke("image", "ls").out)[1]
    assert invoke("image", "prune").out == ""
    assert cache.find(old)
    use("theirs")
    assert invoke("rm", "-y", "web").code == 0
    use("ours")
    assert f"Removed machineos {old[:12]}" in invoke("image", "prune").out
    assert not list((paths.images() / ".users").glob("*/*"))


def test_rm_refuses_and_can_be_made_to(invoke: Invoke, use: Use, old: str, tmp_path: Path) -> None:
    ended = invoke("image", "rm", old)
    assert (ended.code, f"is used by web (in {tmp_path}/theirs)" in ended.err) == (2, True)
    assert cache.find(old)
    assert invoke("image", "rm", "-f", old).code == 0


def test_our_own_machines_are_told_without_the_store(invoke: Invoke, use: Use, old: str) -> None:
    assert invoke("create", "-q", "--image", old, "ours-1").code == 0
    assert "is used by ours-1; web (in " in invoke("image", "rm", old).err


def test_a_store_that_is_gone_is_told_apart(invoke: Invoke, use: Use, old: str, tmp_path: Path) -> None:
    """It was removed, or its disk isn't mounted."""
    shutil.move(tmp_path / "theirs", tmp_path / "unmounted")
    ended = invoke("image", "prune")
    assert f"Kept machineos {old[:12]}, used by {tmp_path}/theirs, which is missing now" in ended.out
    assert json.loads(invoke("image", "prune", "--json").out)["kept"] == [f"machineos {old}"]
    assert cache.find(old)
    assert f"Would remove machineos {old[:12]}" in invoke("image", "prune", "--gone", "-n").out
    shutil.move(tmp_path / "unmounted", tmp_path / "theirs")
    assert invoke("image", "prune", "--gone").out == ""
    shutil.rmtree(tmp_path / "theirs")
    assert f"Removed machineos {old[:12]}" in invoke("image", "prune", "--gone").out


def test_rm_of_what_only_a_gone_store_used_says_so(invoke: Invoke, use: Use, old: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "theirs")
    ended = invoke("image", "rm", old)
    assert (ended.code, f"note: it was used by the store {tmp_path}/theirs, which is missing" in ended.err) == (0, True)


def test_a_store_that_cannot_be_read_counts(invoke: Invoke, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = users._machines

    def refused(folder: Path, digest: str) -> object:
        if folder.name == "theirs":
            raise PermissionError(13, "Permission denied")
        return theirs(folder, digest)

    monkeypatch.setattr(users, "_machines", refused)
    assert invoke("image", "prune").out == ""
    assert "which you may not read" in invoke("image", "rm", old).err


@pytest.mark.parametrize("record", ["", "{", "[]", '{"image": "other"}', None])
def test_a_damaged_record_counts_as_a_user(invoke: Invoke, old: str, tmp_path: Path, record: str | None) -> None:
    config = tmp_path / "theirs" / "machines" / "web" / "machine.json"
    if record is None:
        config.rename(config.with_name("creating.json"))
    else:
        config.write_text(record, encoding="utf-8")
    used = record != '{"image": "other"}'
    assert (f"Removed machineos {old[:12]}" in invoke("image", "prune").out) is not used


def test_a_machine_of_an_earlier_version_counts_from_its_next_start(invoke: Invoke, use: Use, old: str) -> None:
    shutil.rmtree(paths.images() / ".users")
    use("theirs")
    assert invoke("stop", "-q", "web").code == 0
    assert invoke("start", "-q", "web").code == 0
    use("ours")
    assert invoke("image", "prune").out == ""
    assert cache.find(old)


def test_an_upgrade_changes_what_is_used(invoke: Invoke, use: Use, old: str) -> None:
    use("theirs")
    assert invoke("upgrade", "web").code == 0
    new = store.load("web").image
    use("ours")
    assert f"Removed machineos {old[:12]}" in invoke("image", "prune").out
    assert [str(user.store) for user in users.users(new)] == [str(use("theirs"))]


def test_a_snapshot_of_a_running_machine_needs_the_image_that_it_ran(invoke: Invoke, use: Use, old: str) -> None:
    (use("theirs") / "machines" / "web" / "snapshots.json").write_text(json.dumps({"then": {"image": old}}))
    assert invoke("upgrade", "web").code == 0
    use("ours")
    assert invoke("image", "prune").out == ""
    assert cache.find(old)


def test_two_spellings_of_a_store_are_one(use: Use, old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "link"))
    users.note(old)
    assert [str(user) for user in users.users(old)] == ["web"]
    assert len(list((paths.images() / ".users" / old).iterdir())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_is_read_only(invoke: Invoke, use: Use) -> None:
    paths.images().chmod(0o500)
    assert invoke("create", "-q", "dev").code == 0
    paths.images().chmod(0o700)

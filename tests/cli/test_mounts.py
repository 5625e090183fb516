"""create --mount: which folders of the host a machine shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import registry, store
from tests.fixture_types import Invoke


@pytest.fixture(autouse=True)
def shares(monkeypatch: pytest.MonkeyPatch, vms: Path) -> None:
    monkeypatch.setattr(registry.load("fake"), "shares", True)


def test_the_machine_has_what_was_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two words").mkdir()
    given = (str(tmp_path), f"{tmp_path}/two words:/src:ro")
    shown = invoke("create", "dev", "--mount", given[0], "--mount", given[1])
    assert shown.code == 0, shown.err
    assert store.load("dev").mounts == given
    assert json.loads(invoke("status", "dev", "--json").out)["mounts"] == [
        {"source": str(tmp_path), "target": str(tmp_path), "read_only": False},
        {"source": f"{tmp_path}/two words", "target": "/src", "read_only": True},
    ]
    assert json.loads(invoke("inspect", "dev").out)["Machine"]["mounts"] == list(given)


def test_a_folder_that_has_gone_is_warned_of(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    invoke("create", "dev", "--mount", str(folder))
    assert invoke("status", "dev").err == ""
    folder.rmdir()
    assert invoke("status", "dev").err == f"warning: the shared folder {folder} doesn't exist\n"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["src"], 2, 'invalid --mount "src": "src" is not an absolute path'),
        (["."], 2, "is not an absolute path"),
        (["{0}:src"], 2, "is not an absolute path"),
        ([""], 2, "is not an absolute path"),
        (["{0}/../x"], 2, '".."'),
        (["{0}:/a:/b"], 2, "write DIR:PATH:ro"),
        (["{0}:/a:no"], 2, "write DIR:PATH:ro"),
        (["{0}:/a\tb"], 2, "can't be mounted"),
        (["{0}", "{0}:{0}:ro"], 2, "{0} is given twice"),
        (["{0}:/a", "{0}:/a/"], 2, "/a is given twice"),
        (["{0}:/"], 2, "/ is a folder that the machine needs itself"),
        (["{0}:/usr/share"], 2, "needs itself"),
        (["{0}:/home"], 2, "needs itself"),
        (["{0}/none"], 3, "none can't be shared: it isn't there"),
        (["{0}/file"], 3, "file can't be shared: it is no folder"),
        (["{0}/link"], 3, "lies in the store"),
    ],
)
def test_what_cant_be_shared_is_said(invoke: Invoke, tmp_path: Path, given: list[str], code: int, said: str) -> None:
    (tmp_path / "file").touch()
    store.folder().mkdir(parents=True)
    (tmp_path / "link").symlink_to(store.folder())
    words = [word for text in given for word in ("--mount", text.format(tmp_path))]
    shown = invoke("create", "dev", *words)
    assert (shown.code, said.format(tmp_path) in shown.err) == (code, True), shown.err
    assert store.names() == []


def test_a_guest_that_doesnt_mount_them_is_no_machine(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load("fake"), "has_mounted", lambda _: False)
    shown = invoke("create", "dev", "--mount", str(tmp_path))
    assert (shown.code, "didn't mount the shared folders" in shown.err) == (1, True)
    assert "machine iso build" in shown.err
    assert store.names() == []


def test_a_driver_that_shares_nothing_says_so(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load("fake"), "shares", False)
    shown = invoke("create", "dev", "--mount", str(tmp_path))
    assert (shown.code, "the driver fake has no --mount" in shown.err) == (3, True)
    assert store.names() == []

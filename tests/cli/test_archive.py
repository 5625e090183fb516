"""machine export and import: a whole machine moves to another store."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machine import images, probe, store
from machine.paths import Home, Image

Invoke = Callable[..., Any]


@pytest.fixture
def dev(invoke: Invoke, vms: Path) -> Home:
    """A stopped machine with a disk."""
    assert invoke("create", "-q", "dev").code == 0
    home = store.home("dev")
    (home / "disk.qcow2").write_bytes(bytes(range(256)) * 9000)
    (home / "console.log").write_text("of a run")
    assert invoke("stop", "-q", "dev").code == 0
    return home


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Go on in another, empty store."""

    def go() -> Path:
        folder = tmp_path / "elsewhere"
        monkeypatch.setenv("MACHINE_STORAGE_PATH", str(folder))
        return folder

    return go


@pytest.mark.parametrize("zip", [[], ["--gzip"]], ids=["plain", "gzip"])
def test_a_machine_moves_to_another_store(
    invoke: Invoke, dev: Home, tmp_path: Path, elsewhere: Callable[[], Path], zip: list[str]
) -> None:
    file = tmp_path / "dev.machine"
    assert invoke("export", *zip, "dev", file).out == f"Exported dev to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    before = store.load("dev")
    kept = {name: (dev / name).read_bytes() for name in ("disk.qcow2", "id_ed25519", "ssh_host_ed25519_key")}
    elsewhere()
    assert "machine start dev" in invoke("import", file).out
    made, home = store.load("dev"), store.home("dev")
    assert (made.uuid, made.mac, made.memory_mib) == (before.uuid, before.mac, before.memory_mib)
    assert {name: (home / name).read_bytes() for name in kept} == kept
    assert not (home / "console.log").exists()
    assert not list(home.folder.glob("*.pem"))
    assert images.current("machineos").digest == before.image
    assert (home / "disk.qcow2").stat().st_mode & 0o777 == 0o600
    assert invoke("start", "-q", "dev").code == 0
    assert invoke("status", "dev").out == "Running\n"


def test_a_copy_beside_it_gets_an_identity_of_its_own(invoke: Invoke, dev: Home, tmp_path: Path) -> None:
    file = tmp_path / "f"
    invoke("export", "-q", "dev", file)
    assert "already exists" in invoke("import", file).err
    made = json.loads(invoke("import", "--json", "--name", "two", file).out)
    first = store.load("dev")
    assert made["name"] == "two"
    assert made["uuid"] != first.uuid
    assert made["mac"] != first.mac
    assert made["address"] != probe.known("dev")[2]
    assert store.names() == ["dev", "two"]


def test_nothing_of_it_names_a_path(invoke: Invoke, dev: Home, tmp_path: Path) -> None:
    invoke("export", "-q", "dev", tmp_path / "f")
    assert str(tmp_path).encode() not in (tmp_path / "f").read_bytes()


def test_through_a_pipe(
    spawn: Invoke, begin: Callable[..., Any], invoke: Invoke, dev: Home, elsewhere: Callable[[], Path], tmp_path: Path
) -> None:
    with (tmp_path / "pipe").open("wb") as out:
        process = begin("export", "-q", "dev", "-", stdout=out)
        assert process.wait(30) == 0
        process.stderr.close()
    elsewhere()
    with (tmp_path / "pipe").open("rb") as source:
        process = begin("import", "-q", "-", stdin=source)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert store.names() == ["dev"]


def test_without_its_image(invoke: Invoke, dev: Home, tmp_path: Path, elsewhere: Callable[[], Path]) -> None:
    invoke("export", "-q", "--no-image", "dev", tmp_path / "f")
    image = store.load("dev").image
    assert invoke("import", "-q", "-n", "two", tmp_path / "f").code == 0
    elsewhere()
    ended = invoke("import", "-q", tmp_path / "f")
    assert (ended.code, f"the image {image[:12]} isn't in the cache" in ended.err) == (1, True)
    assert store.names() == []


def test_an_image_that_is_there_is_not_touched(
    invoke: Invoke, dev: Home, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    from fake_fixtures import add_image

    invoke("export", "-q", "dev", tmp_path / "f")
    elsewhere()
    newer = add_image(tmp_path, "machineos", b"a newer one")
    invoke("import", "-q", tmp_path / "f")
    assert images.current("machineos").digest == newer.digest
    assert Image(store.load("dev").image).file.exists()


def test_a_running_machine_is_refused(invoke: Invoke, dev: Home, tmp_path: Path) -> None:
    invoke("start", "-q", "dev")
    ended = invoke("export", "dev", tmp_path / "f")
    assert (ended.code, "machine stop dev" in ended.err) == (2, True)
    assert list(tmp_path.glob("*f*")) == []


def test_a_file_that_is_there_is_replaced_by_force_only(invoke: Invoke, dev: Home, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    assert invoke("export", "dev", tmp_path / "f").code == 2
    assert (tmp_path / "f").read_text() == "mine"
    assert invoke("export", "-f", "dev", tmp_path / "f").code == 0
    assert invoke("export", "absent", tmp_path / "g").code == 1


def archive(*entries: tuple[str, bytes], type: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(content), type
            made.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def damaged(good: bytes, how: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(good)) as archived:
        about = archived.extractfile("about.json").read()  # type: ignore[union-attr]
    return {
        "empty": b"",
        "text": b"not a tar at all",
        "cut in the disk": good[: len(good) // 2],
        "cut before the sums": good[: good.rindex(b"sums.json")],
        "a bit": good.replace(b"\x10\x11\x12\x13", b"\x10\x11\x12\x14", 1),
        "outside": archive(("about.json", about), ("home/../../evil", b"x")),
        "absolute": archive(("about.json", about), ("/etc/evil", b"x")),
        "a hidden file": archive(("about.json", about), ("home/.evil", b"x")),
        "of the future": archive(("about.json", about.replace(b'"format": 1', b'"format": 9'))),
        "another tar": archive(("readme", b"x")),
        "not JSON": archive(("about.json", b"{")),
        "a bad name": archive(("about.json", about.replace(b'"name": "dev"', b'"name": "../x"'))),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "cut in the disk", "cut before the sums", "a bit", "outside", "absolute", "a hidden file"),
        *("of the future", "another tar", "not JSON", "a bad name"),
    ],
)
def test_what_is_damaged_leaves_nothing(
    invoke: Invoke, dev: Home, tmp_path: Path, elsewhere: Callable[[], Path], how: str
) -> None:
    invoke("export", "-q", "dev", tmp_path / "f")
    (tmp_path / "f").write_bytes(damaged((tmp_path / "f").read_bytes(), how))
    folder = elsewhere()
    ended = invoke("import", "-q", tmp_path / "f")
    assert ended.code in {1, 2}
    assert ended.err.startswith("Error: ")
    assert store.names() == []
    assert not list(folder.glob("machines/[!.]*"))
    assert not list(folder.glob("images/[!.]*"))
    assert not list(tmp_path.rglob("evil"))


def test_a_file_that_is_not_there(invoke: Invoke, store: Path) -> None:
    assert invoke("import", "absent").code == 1


def test_a_machine_whose_disk_lies_elsewhere(
    dev: Home, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import machine_fake

    monkeypatch.setattr(machine_fake.Fake, "portable", False)
    refused = invoke("export", "dev", tmp_path / "dev.machine")
    assert refused.code == 2
    assert "their disks lie outside of the store" in refused.err
    assert not (tmp_path / "dev.machine").exists()

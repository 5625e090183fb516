"""Storage pools and volumes, against libvirt's test hypervisor."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine.drivers.libvirt import Libvirt
from machine.drivers.libvirt.volumes import Pool

from machine.errors import DriverFailed
from tests.unit.libvirt.conftest import refusal


@pytest.fixture
def content(tmp_path: Path) -> Path:
    file = tmp_path / "content"
    file.write_bytes(b"x" * 3_000_000)
    return file


def test_a_pool_is_made_and_kept(driver: Libvirt) -> None:
    pool = Pool(driver.connection, "mine")
    assert pool.find() is None
    assert pool.free_mib() is None
    assert pool.volume("it") is None
    made = pool.ready()
    assert made.isActive()
    assert made.autostart()
    assert "/var/lib/libvirt/images/mine" in made.XMLDesc()
    assert pool.ready().UUIDString() == made.UUIDString()
    assert (pool.free_mib() or 0) > 1000


def test_a_sessions_pool_lies_with_the_users_data(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(driver.place.uri, "is_session", True)
    assert "<path>/data/libvirt/images/mine</path>" in Pool(driver.connection, "mine").ready().XMLDesc()


def test_a_shared_volume_is_uploaded_once(driver: Libvirt, content: Path, uploads: list[str]) -> None:
    said: list[str] = []
    driver.place.pool.shared("image-1", content, said.append)
    assert said[-1] == "uploading the image: 100 %"
    driver.place.pool.shared("image-1", content, said.append)
    assert uploads == ["image-1"]


def test_half_an_upload_is_done_again(driver: Libvirt, content: Path, uploads: list[str]) -> None:
    driver.place.pool.make("image-1", size=7)
    assert driver.place.pool.shared("image-1", content, lambda text: None).info()[1] == 3_000_000
    assert uploads == ["image-1"]


def test_a_shared_volume_that_somebody_removed(driver: Libvirt, content: Path) -> None:
    driver.place.pool.shared("image-1", content, lambda text: None)
    driver.place.pool.delete("image-1")
    with pytest.raises(DriverFailed, match="was removed"):
        driver.place.pool.shared("image-1", content, lambda text: None)
    driver.place.pool.shared("image-1", content, lambda text: None)


def test_a_pool_that_is_full(driver: Libvirt, content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    def full(stream: object, block: bytes) -> int:
        raise refusal("cannot write to stream: No space left on device")

    monkeypatch.setattr(libvirt.virStream, "send", full)
    with pytest.raises(DriverFailed, match="No space left on device") as refused:
        driver.place.pool.shared("image-1", content, lambda text: None)
    assert "make room" in refused.value.hint
    assert driver.place.pool.volume("image-1") is None, "nothing is left of it"


def test_replace(driver: Libvirt, content: Path, uploads: list[str]) -> None:
    driver.place.pool.make("it", size=1)
    assert driver.place.pool.replace("it", content).info()[1] == 3_000_000
    assert uploads == ["it"]

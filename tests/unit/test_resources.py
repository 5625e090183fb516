import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from machine import resources
from machine.errors import CheckFailed, Usage


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8096", 8096),
        ("512M", 512),
        ("512mb", 512),
        ("2G", 2048),
        ("2g", 2048),
        ("1.5GiB", 1536),
        (" 8 G ", 8192),
        ("1T", 1 << 20),
        ("0.5g", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert resources.mib(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0G",
        "0.4",
        "-1",
        "-1G",
        "G",
        "2X",
        "2GG",
        "2B",
        "1e3",
        "1,5G",
        "two",
        "9" * 400,
        "nan",
        "2G 2G",
        "2\n3",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Usage, match="invalid size"):
        resources.mib(text)


@pytest.mark.parametrize(
    ("size", "text"), [(512, "512 MiB"), (1024, "1 GiB"), (8096, "7.9 GiB"), (2048, "2 GiB"), (1 << 20, "1024 GiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert resources.human(size) == text


def test_memory_is_compared_with_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "host_memory_mib", lambda: (8192, 1024))
    assert resources.check_memory(512) == []
    assert "1 GiB are free" in resources.check_memory(2048)[0]
    with pytest.raises(CheckFailed, match="this host has 8 GiB"):
        resources.check_memory(8193)
    with pytest.raises(CheckFailed, match="too little"):
        resources.check_memory(255)


def test_the_hosts_memory_is_in_mib() -> None:
    total, available = resources.host_memory_mib()
    assert 256 < available <= total == psutil.virtual_memory().total >> 20


def test_more_cpus_than_the_host_has_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    assert resources.check_cpus(4) == []
    assert "they share them" in resources.check_cpus(5)[0]
    with pytest.raises(CheckFailed, match="at least one CPU"):
        resources.check_cpus(0)


def test_a_disk_may_outgrow_the_hosts_but_not_a_full_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024 << 20))
    assert resources.check_disk(1024, tmp_path) == []
    assert "are free on this host" in resources.check_disk(20480, tmp_path)[0]
    with pytest.raises(CheckFailed, match="too small"):
        resources.check_disk(511, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=63 << 20))
    with pytest.raises(CheckFailed, match="only 63 MiB are free"):
        resources.check_disk(1024, tmp_path)

import pytest
from machine.isos.machineos import lists


def test_packages_differ_by_architecture() -> None:
    intel, arm = lists.packages("x86_64"), lists.packages("aarch64")
    assert "linux-image-amd64" in intel
    assert "linux-image-amd64" not in arm
    assert "linux-image-arm64" in arm
    assert "isolinux" not in arm
    assert {"docker.io", "containerd", "openssh-server"} <= set(intel) & set(arm)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/sbin/dockerd", True),
        ("usr/bin/perl", False),
        ("usr/lib/x86_64-linux-gnu/xtables/libxt_nat.so", True),
        ("usr/share/zoneinfo/Europe/Berlin", True),
        ("usr/share/zoneinfo/right/Europe/Berlin", False),
    ],
)
def test_last_matching_pattern_decides(path: str, kept: bool) -> None:
    assert lists.is_kept(path, lists.entries("files.list")) is kept


def test_lists_hold_nothing_twice() -> None:
    for name in ("files.list", "modules.list", "initrd-modules.list"):
        entries = lists.entries(name)
        assert len(entries) == len(set(entries)), name


def test_every_link_has_a_place_and_a_target() -> None:
    assert all(len(line.split()) == 2 for line in lists.entries("links.list"))

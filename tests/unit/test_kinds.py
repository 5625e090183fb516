"""What follows from a machine's kind, and that each driver says the right one."""

from __future__ import annotations

import pytest

from machine import registry
from machine.kinds import Kind


@pytest.mark.parametrize(
    ("driver", "kind"),
    [
        ("qemu", Kind.VM),
        ("lxc", Kind.CONTAINER),
        ("virtualbox", Kind.VM),
        ("virtualbox-adopted", Kind.EXISTING_VM),
        ("generic", Kind.HOST),
        ("none", Kind.URL),
    ],
)
def test_each_driver_says_its_kind(driver: str, kind: Kind) -> None:
    assert registry.load(driver).kind is kind


@pytest.mark.parametrize(
    ("kind", "ours", "has_ssh", "provisioned"),
    [
        (Kind.VM, True, True, True),
        (Kind.CONTAINER, True, True, True),
        (Kind.EXISTING_VM, False, True, False),
        (Kind.HOST, False, True, True),
        (Kind.URL, False, False, False),
    ],
)
def test_what_follows(kind: Kind, ours: bool, has_ssh: bool, provisioned: bool) -> None:
    assert (kind.is_ours, kind.has_ssh, kind.is_provisioned) == (ours, has_ssh, provisioned)


def test_only_a_container_has_another_noun_and_loses_its_memory() -> None:
    assert Kind.CONTAINER.noun == "system container"
    assert {kind for kind in Kind if kind.noun != "virtual machine"} == {Kind.CONTAINER}
    assert {kind for kind in Kind if not kind.keeps_memory} == {Kind.CONTAINER}

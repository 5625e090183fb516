"""The core's sequence, as far as it goes without a guest, against libvirt's own test hypervisor."""

from __future__ import annotations

import dataclasses

import pytest
from machine.drivers.libvirt import Libvirt
from machine.drivers.libvirt.place import Place

from machine import create, helper, lifecycle
from machine.guest import provision
from machine.images import cache
from machine.instance import Instance
from machine.progress import Silent
from machine.spec import Address


@pytest.mark.parametrize("on_loopback", [False, True])
def test_create_connects_once(driver: Libvirt, monkeypatch: pytest.MonkeyPatch, on_loopback: bool) -> None:
    """A connection to another host takes a second. The address that a machine gets meanwhile is known to its driver."""
    import libvirt

    connect = libvirt.open
    opened: list[str] = []
    addresses: list[Address] = []

    def boot(instance: Instance, *_: object, **__: object) -> None:
        instance.folder.seed.write_bytes(b"a seed")
        instance.driver.start()
        addresses.append(instance.driver.address())

    monkeypatch.setattr(libvirt, "open", lambda uri: opened.append(uri) or connect(uri))
    monkeypatch.setattr(lifecycle, "boot", boot)
    monkeypatch.setattr(provision, "check", lambda *_: None)
    monkeypatch.setattr(cache, "check_architecture", lambda digest, architecture, can_follow: None)
    monkeypatch.setattr(helper, "begin", lambda folder, module: None)
    monkeypatch.setattr(Place, "on_loopback", on_loopback)
    made = create.create(dataclasses.replace(driver.machine, name="web"), Silent())
    assert addresses == [made.address or Address("192.168.122.2")]
    assert (made.address is not None) is on_loopback
    assert opened == [made.options["uri"]]

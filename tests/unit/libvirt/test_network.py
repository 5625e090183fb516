"""The network and its reservations, against libvirt's test hypervisor."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from machine.drivers.libvirt import Libvirt
from machine.drivers.libvirt.network import CANDIDATES, Network, reserved, routes, subnet_of

from machine.errors import DriverFailed
from tests.unit.libvirt.conftest import refusal

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0
tun0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_routes() -> None:
    assert routes(ROUTES) == [IPv4Network("192.0.2.0/24"), IPv4Network("192.168.0.0/16")]


def test_a_network_is_made_on_a_subnet_that_nobody_has(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.drivers.libvirt.network.routes", lambda table: routes(ROUTES))
    network = Network(driver.connection, "mine")
    found = network.ready()
    assert found.isActive()
    assert found.autostart()
    assert str(subnet_of(found.XMLDesc())) == "172.31.0.0/24", "192.168.0.0/16 is a VPN's"
    second = Network(driver.connection, "second").ready()
    assert str(subnet_of(second.XMLDesc())) == "172.31.1.0/24"
    assert network.ready().UUIDString() == found.UUIDString()


def test_a_subnet_that_libvirt_finds_in_use(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    monkeypatch.setattr("machine.drivers.libvirt.network.routes", lambda table: [])
    create = libvirt.virNetwork.create
    refused: list[object] = []

    def once(network: object) -> object:
        if refused:
            return create(network)
        refused.append(network)
        raise refusal("Network is already in use by interface eth0")

    monkeypatch.setattr(libvirt.virNetwork, "create", once)
    assert str(subnet_of(Network(driver.connection, "mine").ready().XMLDesc())) == CANDIDATES[1]


def test_a_network_that_cannot_be_made(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    def fail(network: object) -> object:
        raise refusal("no bridges here")

    monkeypatch.setattr(libvirt.virNetwork, "create", fail)
    network = Network(driver.connection, "mine")
    with pytest.raises(DriverFailed, match="the network mine can't be made: no bridges here"):
        network.ready()
    assert network.find() is None, "nothing is left of it"


def test_no_subnet_is_left(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.drivers.libvirt.network.routes", lambda table: [IPv4Network("0.0.0.0/0")])
    with pytest.raises(DriverFailed, match="every private subnet"):
        Network(driver.connection, "mine").ready()


def test_a_reservation_stays_and_is_given_back(driver: Libvirt) -> None:
    network = driver.place.network
    assert network.reserve("52:54:00:00:00:01") == "192.168.122.2"
    assert network.reserve("52:54:00:00:00:02") == "192.168.122.3"
    assert network.reserve("52:54:00:00:00:01") == "192.168.122.2"
    with pytest.raises(DriverFailed, match="no address left"):
        network.reserve("52:54:00:00:00:03")
    network.release("52:54:00:00:00:01")
    network.release("52:54:00:00:00:01")
    assert network.reserve("52:54:00:00:00:03") == "192.168.122.2"


def test_somebody_else_was_quicker(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    network = driver.place.network
    network.reserve("52:54:00:00:00:01")
    monkeypatch.setattr("machine.drivers.libvirt.network.free", lambda *_: iter(["192.168.122.2", "192.168.122.3"]))
    assert network.reserve("52:54:00:00:00:02") == "192.168.122.3"
    assert set(reserved(network.find().XMLDesc()).values()) == {"192.168.122.2", "192.168.122.3"}


def test_nothing_of_a_network_that_is_not_there(driver: Libvirt) -> None:
    network = Network(driver.connection, "none")
    network.release("52:54:00:00:00:01")
    assert network.lease("52:54:00:00:00:01") == ""

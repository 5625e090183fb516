import dataclasses

import pytest

from machine.network import addresses
from machine.spec import Address, Machine

MACHINE = Machine(
    *("dev", "qemu", "u", "52:54:00:12:34:56", "", 512, 1, 1024), address=Address("127.77.9.4"), network="lab"
)


def test_an_address_mirrors_that_on_the_host() -> None:
    assert addresses.of(Address("127.77.9.4")) == "10.77.9.4"
    assert addresses.server("10.77.9.4") == "10.77.9.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.77.3", "127.7.7.1"])
def test_other_addresses_have_no_mirror(host: str) -> None:
    assert addresses.of(Address(host)) == ""


def test_the_card_of_a_machine() -> None:
    card = addresses.card("eth1", MACHINE)
    assert vars(card) == {
        "card": "eth1",
        "mac": "52:54:4d:12:34:56",
        "address": "10.77.9.4/24",
        "mtu": addresses.MTU,
        "server": "10.77.9.1",
    }


def test_the_card_of_a_machine_on_no_network_has_no_address() -> None:
    assert addresses.card("eth1", dataclasses.replace(MACHINE, network="")).address == ""
    assert addresses.card("eth1", dataclasses.replace(MACHINE, address=None)).address == ""

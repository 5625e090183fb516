import socket
from pathlib import Path

import pytest

from machine import loopback
from machine.docker import ports
from machine.errors import CheckFailed
from machine.spec import Address

STORE = Path("/home/somebody/.machine")


def choose(taken: list[Address], platform: str = "linux", busy: set[tuple[str, int]] | None = None) -> Address:
    return loopback.choose(
        taken,
        STORE,
        platform=platform,
        is_free=lambda host, port: (host, port) not in (busy or set()),
        aliases=lambda: {"127.0.0.1"},
    )


def block() -> str:
    return choose([]).host.rpartition(".")[0]


def test_each_machine_gets_an_address_of_its_own_with_the_usual_ports() -> None:
    taken: list[Address] = []
    for _ in range(253):
        taken.append(choose(taken))
    assert len({address.host for address in taken}) == 253
    assert {(address.docker_port, address.ssh_port) for address in taken} == {(2375, 22)}
    assert all(address.host.startswith("127.77.") for address in taken)
    assert not {address.host for address in taken} & {f"{block()}.0", f"{block()}.1", f"{block()}.255"}
    with pytest.raises(CheckFailed, match="no loopback address"):
        choose(taken)


def test_the_block_follows_from_the_stores_path() -> None:
    hosts = {loopback.choose([], Path(f"/store/{number}"), is_free=lambda *_: True).host for number in range(20)}
    assert len(hosts) > 10


def test_a_link_to_the_store_makes_no_other_block(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "store")
    found = {
        loopback.choose([], tmp_path / name, platform="linux", is_free=lambda *_: True) for name in ("store", "link")
    }
    assert len(found) == 1


def test_a_freed_address_is_used_again() -> None:
    taken = [choose([])]
    assert choose([]) == taken[0]
    assert choose(taken) != taken[0]


def test_an_address_whose_docker_port_is_taken_is_passed_over() -> None:
    assert choose([], busy={(f"{block()}.2", 2375)}).host == f"{block()}.3"


def test_ssh_goes_to_2222_where_22_cant_be_opened_and_to_another_address_where_neither_can() -> None:
    first = f"{block()}.2"
    assert choose([], busy={(first, 22)}) == Address(first, 2375, 2222)
    assert choose([], busy={(first, 22), (first, 2222)}).host == f"{block()}.3"


def test_macos_has_one_address_and_ports_for_each() -> None:
    first = choose([], "darwin")
    second = choose([first], "darwin", busy={("127.0.0.1", 2376)})
    assert first == Address("127.0.0.1", 2375, 2222)
    assert second == Address("127.0.0.1", 2377, 2223)
    taken = [Address("127.0.0.1", 2375, ssh) for ssh in range(2222, 2376)]
    assert choose(taken, "darwin") == Address("127.0.0.1", 2376, 2377)


def test_macos_with_aliases_has_addresses_too() -> None:
    there = {f"{block()}.3", f"{block()}.4", "127.0.0.1", "127.77.999.2"}

    def choose_with(taken: list[Address]) -> Address:
        return loopback.choose(taken, STORE, platform="darwin", is_free=lambda *_: True, aliases=lambda: there)

    first = choose_with([])
    second = choose_with([first])
    assert [first.host, second.host] == [f"{block()}.3", f"{block()}.4"]
    assert choose_with([first, second]) == Address("127.0.0.1", 2375, 2222)


def test_what_makes_aliases_makes_those_that_machines_take() -> None:
    assert loopback.alias_command(STORE) == (
        f"sudo sh -c 'for n in $(seq 2 17); do ifconfig lo0 alias {block()}.$n; done'"
    )
    assert "127.0.0.1" in loopback.own_addresses()


def test_macos_without_a_free_port() -> None:
    with pytest.raises(CheckFailed, match="no port is free"):
        loopback.choose([], STORE, platform="darwin", is_free=lambda *_: False)


def test_a_port_that_somebody_listens_on_isnt_free() -> None:
    address = loopback.choose([], STORE, platform="darwin")
    with socket.create_server((address.host, address.docker_port)):
        assert loopback.choose([], STORE, platform="darwin").docker_port != address.docker_port
    assert loopback.choose([], STORE, platform="darwin") == address


def test_a_port_listened_on_for_all_addresses_isnt_free() -> None:
    with socket.create_server(("", 0)) as server:
        assert ports.why_not("tcp", "127.77.3.4", server.getsockname()[1])


def test_ports_that_the_hypervisors_user_may_not_open_are_passed_over() -> None:
    assert loopback.choose([], STORE, lowest_port=1024, is_free=lambda *_: True).ssh_port == 2222
    assert loopback.choose([], STORE, lowest_port=22, is_free=lambda *_: True).ssh_port == 22

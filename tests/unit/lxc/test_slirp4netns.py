from pathlib import Path

import pytest
from fake_lxc import Api
from machine.drivers.lxc.slirp4netns import Slirp4netns

from machine.errors import DriverFailed
from machine.spec import Address

HERE = Address("127.77.0.2", 2375, 2222)


def forwards(api: Api) -> Slirp4netns:
    return Slirp4netns(Path(api.socket.getsockname()), HERE)


@pytest.mark.parametrize("wrapped", [False, True])
def test_its_own_ports_are_opened_once_and_not_listed(api: Api, wrapped: bool) -> None:
    api.wrapped = wrapped
    forwards(api).open_own()
    forwards(api).open_own()
    assert [(it["host_addr"], it["host_port"], it["guest_port"]) for it in api.forwards.values()] == [
        ("127.77.0.2", 2375, 2375),
        ("127.77.0.2", 2222, 22),
    ]
    assert forwards(api).current() == set()


def test_ports_come_and_go(api: Api) -> None:
    ours = forwards(api)
    assert ours.add("udp", 53) == ""
    assert ours.add("tcp", 8080) == ""
    assert ours.current() == {("udp", 53), ("tcp", 8080)}
    ours.drop("udp", 53)
    ours.drop("udp", 53)
    assert ours.current() == {("tcp", 8080)}


def test_forwards_of_other_addresses_are_not_ours(api: Api) -> None:
    api.forwards[9] = {"proto": "tcp", "host_addr": "127.0.0.1", "host_port": 8080}
    assert forwards(api).current() == set()


def test_a_port_that_is_refused_has_its_reason(api: Api) -> None:
    api.refuses = "bad request: add_hostfwd: slirp_add_hostfwd failed"
    assert "slirp_add_hostfwd failed" in forwards(api).add("tcp", 8080)
    with pytest.raises(DriverFailed, match="port 2375, for Docker, can't be opened"):
        forwards(api).open_own()


def test_a_silent_slirp4netns_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DriverFailed, match="slirp4netns doesn't answer"):
        Slirp4netns(tmp_path / "none.sock", HERE).current()

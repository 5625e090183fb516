"""The helper process, in this one."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from machine.drivers.libvirt import Libvirt, helper
from machine.drivers.libvirt.forwards import Forwards

from machine.paths import Home
from machine.ports import follow, taken
from machine.spec import Address


class Client:
    """Docker, where one container publishes port 80 and then ends."""

    answers = ([{"Ports": [{"Type": "tcp", "PublicPort": 80, "IP": "0.0.0.0"}]}], [])

    def __init__(self, *_: object) -> None:
        self.left = list(self.answers)

    def container_events(self) -> Iterator[None]:
        while self.left:
            yield

    def get(self, path: str) -> Any:
        return self.left.pop(0)


def test_published_ports_are_followed(driver: Libvirt) -> None:
    seen: list[set[tuple[str, int]]] = []

    class Records(Forwards):
        def bring_in_line(self, wanted: set[tuple[str, int]]) -> None:
            super().bring_in_line(wanted)
            seen.append(wanted)

    assert taken(driver.home) == []
    client = Client()
    client.left = client.left[:1]
    follow(driver.home, Records([]), client)  # type: ignore[arg-type]
    assert taken(driver.home) == ["80/tcp"]
    follow(driver.home, Records([]), Client())  # type: ignore[arg-type]
    assert seen == [{("tcp", 80)}, {("tcp", 80)}, set()]
    assert taken(driver.home) == []


def test_one_helper_for_a_machine(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[object]] = []
    monkeypatch.setattr(helper, "detach", lambda argv, *, output: started.append(argv))
    helper.ensure(driver.home)
    assert started[0][1:] == ["-m", "machine.drivers.libvirt", driver.home.folder]
    with helper._lock(driver.home) as free:
        assert free
        helper.ensure(driver.home)
    assert len(started) == 1


def test_a_running_machine_on_loopback_has_its_helper(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    helped: list[Home] = []
    monkeypatch.setattr(helper, "ensure", helped.append)
    driver.create()
    driver.start()
    driver.state()
    assert helped == []
    monkeypatch.setattr(driver.connection.uri, "is_session", True)
    driver.state()
    driver.kill()
    driver.state()
    assert helped == [driver.home]


def test_it_ends_with_the_machine(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "LONG_TICK", 60)
    monkeypatch.setattr(helper, "TICK", 0.1)
    monkeypatch.setattr("machine.docker.Client", Client)
    driver.create()
    driver.start()
    driver.snapshot("on")
    driver.machine = dataclasses.replace(driver.machine, address=Address("127.77.0.2"))
    process = helper.Helper(driver)
    watching = threading.Thread(target=process.watch)
    watching.start()
    watching.join(0.2)
    assert watching.is_alive()
    process.forwards.current.add(("tcp", 80))
    driver.restore("on")  # the test hypervisor starts another machine for it
    driver.find().suspend()
    driver.find().resume()
    watching.join(0.5)
    assert watching.is_alive()
    assert process.forwards.current == set()
    driver.find().destroy()
    watching.join(5)
    assert not watching.is_alive()
    process.close()


def test_a_console_on_another_host(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    blocks = [b"first\n", b"second\n"]
    asked: list[int] = []

    def download(volume: object, stream: object, offset: int, length: int) -> None:
        asked.append(offset)

    def receive(stream: object, size: int) -> bytes:
        content = b"".join(blocks[: len(asked)])[asked[-1] :]
        given.append(content)
        return b"" if len(given) % 2 == 0 else content

    given: list[bytes] = []
    monkeypatch.setattr(libvirt.virStorageVol, "download", download)
    monkeypatch.setattr(libvirt.virStream, "recv", receive)
    console = helper.Console(driver)
    console.fetch()
    assert not driver.home.console.exists(), "there is no such volume yet"
    driver.pool.make(driver.volume("console.log"), size=0)
    console.fetch()
    console.fetch()
    assert asked == [0, 6]
    assert driver.home.console.read_bytes() == b"first\nsecond\n"
    assert helper.Console(driver).offset == 13

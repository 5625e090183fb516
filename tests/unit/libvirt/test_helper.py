"""The helper process, in this one."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from machine.drivers.libvirt import Libvirt, helper, power

from machine import helper as processes
from machine.docker.ports import NoForwards
from machine.paths import MachineFolder
from machine.spec import Address
from machine.usernet import Slirp
from tests.unit.libvirt.conftest import changed


def test_a_running_machine_on_loopback_has_its_helper(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[MachineFolder] = []
    ensured: list[MachineFolder] = []
    monkeypatch.setattr(processes, "begin", lambda folder, module: begun.append(folder))
    monkeypatch.setattr(processes, "ensure", lambda folder, module: ensured.append(folder))
    driver.create()
    driver.start()
    driver.state()
    assert (begun, ensured) == ([], [])
    monkeypatch.setattr(driver.place.uri, "is_session", True)
    driver.state()
    assert (begun, ensured) == ([], [driver.folder])
    driver.kill()
    driver.state()
    power.begin_helper(driver.place)
    assert (begun, ensured) == ([driver.folder], [driver.folder])


@pytest.mark.parametrize(
    ("xml", "kind"), [("<qemu:arg value='user,id=machine,hostfwd=x'/>", Slirp), ("<backend type='passt'/>", NoForwards)]
)
def test_the_way_to_the_forwards(driver: Libvirt, monkeypatch: pytest.MonkeyPatch, xml: str, kind: type) -> None:
    driver.create()
    monkeypatch.setattr(helper, "_xml", lambda domain: xml)
    with helper.Helper(driver.place).forwards(Address("127.77.0.2")) as forwards:
        assert isinstance(forwards, kind)


def test_a_disk_that_is_full_for_a_while_doesnt_end_it(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "LONG_TICK", 0.01)
    monkeypatch.setattr(helper, "TICK", 0.01)
    driver.create()
    driver.start()
    process = helper.Helper(driver.place)
    full = [OSError(28, "No space left on device")] * 3

    class Console:
        def fetch(self) -> None:
            if full:
                raise full.pop()
            driver.place.find().destroy()

    process.console = Console()
    process.watch()
    assert full == []
    process.close()
    assert not process.lives()


def test_a_tunnel_is_opened_again_whatever_ended_it(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "PAUSE", 0.0)
    process = helper.Helper(driver.place)
    faults: list[Callable[[], None]] = [lambda: None, lambda: _raise(OSError(28, "No space left on device"))]

    class Tunnel:
        def hold(self, log: object) -> None:
            if faults:
                faults.pop()()
            else:
                process.ended.set()

    process._keep_open(Tunnel())
    assert faults == []


def _raise(error: Exception) -> None:
    raise error


def test_it_ends_with_the_machine(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "LONG_TICK", 600)
    monkeypatch.setattr(helper, "TICK", 0.1)
    driver.create()
    driver.start()
    driver.snapshot("on")
    driver = changed(driver, address=Address("127.77.0.2"))
    process = helper.Helper(driver.place)
    watching = threading.Thread(target=process.watch)
    watching.start()
    watching.join(0.2)
    assert watching.is_alive()
    driver.restore("on")  # the test hypervisor starts another machine for it
    driver.place.find().suspend()
    driver.place.find().resume()
    watching.join(0.5)
    assert watching.is_alive()
    driver.place.find().destroy()
    watching.join(120)
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
    console = helper.Console(driver.place)
    console.fetch()
    assert not driver.folder.console.exists(), "there is no such volume yet"
    driver.place.pool.make(driver.place.volume("console.log"), size=0)
    console.fetch()
    console.fetch()
    assert asked == [0, 6]
    assert driver.folder.console.read_bytes() == b"first\nsecond\n"
    assert helper.Console(driver.place).offset == 13

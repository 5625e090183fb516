import json
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from fake_vboxmanage import UUID, Scripted, info, refused, transcript
from machine.drivers.virtualbox import network
from machine.drivers.virtualbox.options import Options
from machine.drivers.virtualbox.vboxmanage import VBoxFailed, VBoxManage

from machine.errors import CheckFailed, DriverFailed, Usage
from machine.guest.seed import Interface
from machine.run import Completed
from tests.unit.virtualbox.conftest import Make

NEW = (7, 2, 22)
CREATED = Completed([], 0, "Interface 'vboxnet3' was successfully created\n", "0%...100%\n")
CARD = ("--nictype2", "virtio", "--macaddress2", "5254010a0b0c", "--cableconnected2", "on")
ADDED = (
    *("--name", "machine-192.168.59.0", "--netmask", "255.255.255.0"),
    *("--lower-ip", "192.168.59.1", "--upper-ip", "192.168.59.199", "--enable"),
)
NETS = """Name:            machine-192.168.59.0
State:           Enabled
NetworkMask:     255.255.255.0
LowerIP:         192.168.59.1
UpperIP:         192.168.59.199
VBoxNetworkName: hostonly-machine-192.168.59.0
"""


@pytest.fixture(autouse=True)
def interfaces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, IPv4Interface]]:
    """What the host has besides."""
    found = [("lo", IPv4Interface("127.0.0.1/8")), ("eth0", IPv4Interface("10.1.2.3/16"))]
    monkeypatch.setattr(network, "_interfaces", lambda: iter(found))
    return found


def test_nothing_is_asked_when_nothing_is_wanted(call: VBoxManage, run: Scripted) -> None:
    network.check(Options(), call, NEW)
    assert run.calls == []


def test_host_only_and_bridged_at_once(call: VBoxManage) -> None:
    with pytest.raises(Usage, match="host-only and a bridged"):
        network.check(Options(hostonly=True, bridged="eth0"), call, NEW)


def test_an_interface_to_bridge_to(call: VBoxManage, run: Scripted) -> None:
    run.answer("list bridgedifs", transcript("netns-list-bridgedifs"))
    network.check(Options(bridged="tap0"), call, NEW)
    with pytest.raises(CheckFailed, match="no network interface 'eth7'") as caught:
        network.check(Options(bridged="eth7"), call, NEW)
    assert caught.value.hint == "there are: tap0"


@pytest.mark.parametrize("cidr", ["192.168.59.1", "192.168.59.1/25", "192.168.59.0/24", "hello", "fd00::1/64"])
def test_a_network_that_wont_do(call: VBoxManage, cidr: str) -> None:
    with pytest.raises(Usage) as caught:
        network.check(Options(hostonly_cidr=cidr), call, NEW)
    assert "--virtualbox-hostonly-cidr 192.168.59.1/24" in caught.value.hint


def test_a_network_that_is_in_use(call: VBoxManage, run: Scripted, interfaces: list[tuple[str, IPv4Interface]]) -> None:
    interfaces.append(("tun0", IPv4Interface("192.168.56.7/21")))
    with pytest.raises(CheckFailed, match=r"192\.168\.59\.0/24 is in use on this computer, by tun0"):
        network.check(Options(hostonly=True), call, NEW, "linux")


def test_an_adapter_that_is_there_is_no_collision(
    call: VBoxManage, run: Scripted, interfaces: list[tuple[str, IPv4Interface]]
) -> None:
    interfaces.append(("vboxnet0", IPv4Interface("192.168.56.1/24")))
    run.answer("list hostonlyifs", transcript("netns-list-hostonlyifs"))
    network.check(Options(hostonly_cidr="192.168.56.1/24"), call, NEW, "linux")


@pytest.mark.parametrize(
    ("platform", "version", "conf", "allowed"),
    [
        ("linux", NEW, "", False),
        ("linux", NEW, "* 10.0.0.0/8\n* 172.16.0.0/12 fd00::/8\n", True),
        ("linux", (6, 1, 20), "", True),
        ("darwin", NEW, "", False),
        ("win32", NEW, "", True),
    ],
)
def test_what_virtualbox_allows(
    call: VBoxManage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    version: tuple[int, int, int],
    conf: str,
    allowed: bool,
) -> None:
    file = tmp_path / "networks.conf"
    file.write_text(conf)
    monkeypatch.setattr(network, "_CONF", file)
    options = Options(hostonly_cidr="172.20.1.1/24")
    if allowed:
        network.check(options, call, version, platform)
    else:
        with pytest.raises(CheckFailed, match=r"allows host-only networks in 192\.168\.56\.0/21 only") as caught:
            network.check(options, call, version, platform)
        assert str(file) in caught.value.hint


def test_the_bridged_card(make: Make, run: Scripted) -> None:
    driver = make(bridged="eth0")
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage)
    assert run.calls == [
        ["modifyvm", UUID, "--nic2", "bridged", "--bridgeadapter2", "eth0", *CARD],
    ]
    assert driver.interfaces() == ()


def test_an_adapter_is_made(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    run.answer("hostonlyif create", CREATED)
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")
    assert run.calls == [
        ["list", "hostonlyifs"],
        ["hostonlyif", "create"],
        ["hostonlyif", "ipconfig", "vboxnet3", "--ip", "192.168.59.1", "--netmask", "255.255.255.0"],
        ["modifyvm", UUID, "--nic2", "hostonly", "--hostonlyadapter2", "vboxnet3", *CARD],
    ]
    assert driver.interfaces() == (
        Interface("52:54:00:0a:0b:0c"),
        Interface("52:54:01:0a:0b:0c", "192.168.59.30/24"),
    )


def test_an_adapter_is_found(make: Make, run: Scripted) -> None:
    driver = make(hostonly_cidr="192.168.56.1/24")
    run.answer("list hostonlyifs", transcript("netns-list-hostonlyifs"))
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")
    assert not run.said("hostonlyif")
    assert run.said(f"modifyvm {UUID} --nic2 hostonly --hostonlyadapter2 vboxnet0")
    # It isn't ours: it stays.
    network.detach(driver.folder, driver.vboxmanage)
    assert not run.said("hostonlyif remove")


def test_macos_has_networks_in_place_of_adapters(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "darwin")
    assert run.calls[:2] == [
        ["list", "hostonlynets"],
        ["hostonlynet", "add", *ADDED],
    ]
    assert run.said(f"modifyvm {UUID} --nic2 hostonlynet --host-only-net2 machine-192.168.59.0")
    # Above what VirtualBox's own DHCP server gives there.
    assert driver.interfaces()[1].address == "192.168.59.200/24"


def test_a_network_of_macos_is_found(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    run.answer("list hostonlynets", Completed([], 0, NETS, ""))
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "darwin")
    assert not run.said("hostonlynet")


def test_two_machines_have_two_addresses_and_the_last_removes_the_adapter(make: Make, run: Scripted) -> None:
    one, two = make("one", hostonly=True), make("two", hostonly=True)
    run.answer("hostonlyif create", CREATED)
    made = transcript("netns-list-hostonlyifs").stdout.replace("vboxnet0", "vboxnet3").replace("168.56.1", "168.59.1")
    run.answer("list hostonlyifs", Completed([], 0, "", ""), Completed([], 0, made, ""))
    for driver in (one, two):
        network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")
    assert len(run.said("hostonlyif create")) == 1
    assert [driver.interfaces()[1].address for driver in (one, two)] == ["192.168.59.30/24", "192.168.59.31/24"]

    network.detach(one.folder, one.vboxmanage)
    assert not run.said("hostonlyif remove")
    network.detach(two.folder, two.vboxmanage)
    assert run.said("hostonlyif remove") == [["hostonlyif", "remove", "vboxnet3"]]
    assert not list(one.folder.store.rglob(network.NOTE))


def test_an_adapter_that_somebody_else_uses_by_now_stays(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    run.answer("hostonlyif create", Completed([], 0, CREATED.stdout.replace("vboxnet3", "vboxnet0"), ""))
    network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")
    run.answer("list --long vms", transcript("storage-list-vms-long"))
    network.detach(driver.folder, driver.vboxmanage)
    assert not run.said("hostonlyif remove")


def test_an_adapter_that_cant_be_set_up_is_removed_with_the_machine(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    run.answer("hostonlyif create", CREATED)
    run.answer("hostonlyif ipconfig", refused("no"))
    with pytest.raises(VBoxFailed):
        network.attach(driver.machine, driver.folder, driver.options, VBoxManage(run, driver.folder.store), "linux")
    run.answer("showvminfo", info())
    driver.remove()
    assert run.said("hostonlyif remove") == [["hostonlyif", "remove", "vboxnet3"]]


def test_the_network_driver_isnt_loaded(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    run.answer("hostonlyif create", transcript("net-start-hostonlyif-create"))
    with pytest.raises(VBoxFailed, match="network driver isn't loaded"):
        network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")


def test_a_full_network(make: Make, run: Scripted) -> None:
    driver = make(hostonly=True)
    for number in range(30, 100):
        other = make(f"m{number}").folder
        note = {"kind": "hostonlyif", "name": "v", "address": f"192.168.59.{number}/24", "made": False}
        (other / network.NOTE).write_text(json.dumps(note))
    with pytest.raises(DriverFailed, match="no address is free"):
        network.attach(driver.machine, driver.folder, driver.options, driver.vboxmanage, "linux")


def test_collision() -> None:
    there = [("eth0", IPv4Interface("10.1.2.3/16"))]
    assert network.collision(IPv4Network("10.1.99.0/24"), there) == "eth0"
    assert network.collision(IPv4Network("10.2.0.0/24"), there) == ""

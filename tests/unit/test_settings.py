"""Adding to a machine's settings, and taking away."""

from __future__ import annotations

import pytest

from machine import settings
from machine.errors import Usage
from machine.settings import Edit, Edits
from machine.spec import Engine, Machine


def machine(hosts: tuple[str, ...] = (), sysctls: tuple[str, ...] = (), **engine: tuple[str, ...]) -> Machine:
    return Machine(
        "dev", "qemu", "uuid", "mac", "", 1024, 2, 8192, engine=Engine(**engine), hosts=hosts, sysctls=sysctls
    )


def changed(field: str, before: tuple[str, ...], add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> object:
    after = settings.edited(machine(**{field: before}), Edits(**{field: Edit(add, remove)}))
    return getattr(after, field) if field in {"hosts", "sysctls"} else getattr(after.engine, field)


@pytest.mark.parametrize(
    ("field", "before", "add", "after"),
    [
        ("options", ("mtu=1400", "debug"), ("mtu=1300",), ("mtu=1300", "debug")),
        ("options", ("--log-driver local",), ("log-driver=none",), ("log-driver=none",)),
        ("options", ("dns=1.1.1.1",), ("dns=9.9.9.9", "dns=1.1.1.1"), ("dns=1.1.1.1", "dns=9.9.9.9")),
        ("options", ("log-opt=max-size=1m", "log-opt=max-file=2"), ("log-opt=max-size=5m",),
         ("log-opt=max-size=5m", "log-opt=max-file=2")),
        ("options", ("default-ulimit=nofile=1:2",), ("default-ulimit=nofile=3:4", "default-ulimit=core=0"),
         ("default-ulimit=nofile=3:4", "default-ulimit=core=0")),
        ("options", ("default-network-opt=bridge=a=1", "default-network-opt=bridge=b=1"),
         ("default-network-opt=bridge=a=2",),
         ("default-network-opt=bridge=a=2", "default-network-opt=bridge=b=1")),
        ("labels", ("a=1", "b=2"), ("a=3", "c=4"), ("a=3", "b=2", "c=4")),
        ("environment", ("HTTP_PROXY=http://a:1",), ("HTTP_PROXY=http://b:1",), ("HTTP_PROXY=http://b:1",)),
        ("registry_mirrors", ("http://a",), ("http://b", "http://a"), ("http://a", "http://b")),
        ("insecure_registries", (), ("a:1", "a:1"), ("a:1",)),
        ("hosts", ("r.test=10.0.0.1",), ("R.test=10.0.0.2", "r.test=::1"), ("R.test=10.0.0.2", "r.test=::1")),
        ("sysctls", ("vm.swappiness=1",), ("vm/swappiness=2",), ("vm/swappiness=2",)),
    ],
)  # fmt: skip
def test_an_item_takes_the_place_of_one_that_sets_the_same(
    field: str, before: tuple[str, ...], add: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert changed(field, before, add) == after


@pytest.mark.parametrize(
    ("field", "before", "remove", "after"),
    [
        ("options", ("mtu=1400", "debug"), ("mtu",), ("debug",)),
        ("options", ("--storage-driver vfs",), ("-s",), ()),
        ("options", ("dns=1.1.1.1", "dns=9.9.9.9"), ("dns",), ()),
        ("options", ("dns=1.1.1.1", "dns=9.9.9.9"), ("dns=9.9.9.9",), ("dns=1.1.1.1",)),
        ("options", ("log-opt=max-size=1m", "log-opt=max-file=2"), ("log-opt=max-size",), ("log-opt=max-file=2",)),
        ("labels", ("a=1", "b=2"), ("a", "b=2"), ()),
        ("environment", ("A=1", "AB=2"), ("A",), ("AB=2",)),
        ("registry_mirrors", ("http://a/?x=1", "http://b"), ("http://a/?x=1",), ("http://b",)),
        ("insecure_registries", ("a:1", "b:1"), ("a:1",), ("b:1",)),
        ("hosts", ("r.test=10.0.0.1", "r.test=::1", "s=1.1.1.1"), ("R.test",), ("s=1.1.1.1",)),
        ("hosts", ("r.test=10.0.0.1", "r.test=::1"), ("r.test=::1",), ("r.test=10.0.0.1",)),
        ("sysctls", ("vm/swappiness=1",), ("vm.swappiness",), ()),
    ],
)
def test_an_item_is_taken_away_by_its_name_or_as_typed(
    field: str, before: tuple[str, ...], remove: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert changed(field, before, (), remove) == after


def test_what_is_not_there_to_take_away_is_said() -> None:
    said: list[str] = []
    dev = machine(labels=("a=1",))
    assert settings.edited(dev, Edits(labels=Edit(remove=("b",))), said.append) == dev
    assert said == ['there is no "b" to remove']


def test_removing_comes_before_adding() -> None:
    assert changed("labels", ("a=1", "b=2"), ("a=3",), ("a",)) == ("b=2", "a=3")


@pytest.mark.parametrize(
    "item",
    ["", "a", "=1.1.1.1", "a=", "a=b", "a b=1.1.1.1", "-a=1.1.1.1", "a=1.1.1.1/8", "a=fe80::1%eth0", "localhost=::1",
     "a..b=1.1.1.1", "a\n=1.1.1.1", "a=1.1.1.1\n2.2.2.2 b", f"{'a' * 64}=1.1.1.1"],
)  # fmt: skip
def test_host_names_that_cant_be(item: str) -> None:
    with pytest.raises(Usage):
        settings.check(machine(hosts=(item,)))


@pytest.mark.parametrize(
    "item",
    ["", "vm", "vm=1", "vm.x", "vm.x=", "vm..x=1", "/vm/x=1", "../vm.x=1", "vm.x=1\nvm.y=2", "vm x=1",
     "kernel.hostname=x", "net/ipv4/ip_forward=0", "vm.x=\0"],
)  # fmt: skip
def test_kernel_settings_that_cant_be(item: str) -> None:
    with pytest.raises(Usage):
        settings.check(machine(sysctls=(item,)))


def test_the_files() -> None:
    dev = machine(("r.test=10.0.0.1", "v6=2001:DB8::1"), ("vm.swappiness = 10", "net.ipv4.tcp_rmem=1 2 3"))
    assert settings.hosts(dev) == "10.0.0.1 r.test\n2001:db8::1 v6\n"
    assert settings.sysctls(dev) == "vm.swappiness=10\nnet.ipv4.tcp_rmem=1 2 3\n"

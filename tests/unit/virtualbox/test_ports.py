import subprocess
import sys
from pathlib import Path

import pytest
from fake_vboxmanage import UUID, Scripted, info, transcript
from machine.drivers.virtualbox import ports
from machine.drivers.virtualbox.ports import Hypervisor, Rules
from machine.drivers.virtualbox.vboxmanage import VBoxManage

from machine.docker.ports import bring_in_line, note
from machine.driver import State
from machine.spec import Address
from tests.unit.virtualbox.conftest import Make

OURS = 'Forwarding(0)="docker,tcp,127.77.1.2,2375,,2375"'
RUNNING = info("running", OURS, 'Forwarding(1)="tcp-8080,tcp,127.77.1.2,8080,,8080"')


@pytest.fixture
def rules(call: VBoxManage, monkeypatch: pytest.MonkeyPatch) -> Rules:
    monkeypatch.setattr(ports.ports, "why_not", lambda protocol, host, port: "it rains" if port == 99 else "")
    return Rules(call, UUID, Address("127.77.1.2"))


def test_rules_come_and_go_with_what_is_published(rules: Rules, run: Scripted) -> None:
    run.answer("showvminfo", RUNNING)
    failed = bring_in_line([(rules, {("tcp", 80), ("udp", 53), ("tcp", 99)})])
    assert run.said("controlvm") == [
        ["controlvm", UUID, "natpf1", "delete", "tcp-8080"],
        ["controlvm", UUID, "natpf1", "tcp-80,tcp,127.77.1.2,80,,80"],
        ["controlvm", UUID, "natpf1", "udp-53,udp,127.77.1.2,53,,53"],
    ]
    assert failed == {("tcp", 99): "it rains"}


def test_what_is_right_is_left_alone(rules: Rules, run: Scripted) -> None:
    run.answer("showvminfo", RUNNING)
    assert bring_in_line([(rules, {("tcp", 8080)})]) == {}
    assert not run.said("controlvm")


def test_the_machine_lives_as_long_as_virtualbox_says_so(call: VBoxManage, run: Scripted) -> None:
    hypervisor = Hypervisor(call, UUID)
    for word, lives in {"running": True, "paused": True, "starting": True, "saved": False, "poweroff": False}.items():
        run.answer("showvminfo", info(word))
        assert hypervisor.lives() is lives
    run.answer("showvminfo", transcript("main-showvminfo-unknown"))
    assert not hypervisor.lives()


def test_what_isnt_forwarded_is_shown_by_status(make: Make) -> None:
    driver = make()
    assert driver.warnings() == []
    note(driver.folder, ["port 99/tcp isn't forwarded: it rains"])
    assert driver.warnings() == ["port 99/tcp isn't forwarded: it rains"]


@pytest.mark.parametrize(("word", "begun"), [("running", 1), ("paused", 0), ("poweroff", 0)])
def test_whoever_asks_for_the_state_starts_a_helper_that_was_killed(
    make: Make, run: Scripted, ensured: list[Path], word: str, begun: int
) -> None:
    driver = make()
    run.answer("showvminfo", info(word))
    assert (driver.state() is State.RUNNING) == bool(begun)
    assert len(ensured) == begun


def test_only_the_helper_imports_what_forwards_ports() -> None:
    """Each verb that asks for a machine's state imports the driver, and `ls` is to be quick."""
    script = "import sys, machine.drivers.virtualbox; print('machine.docker.forwarding' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == "False\n"

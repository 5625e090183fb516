import time
from pathlib import Path
from typing import Protocol

import machine_fake
import pytest
from fake_fixtures import host_of

from machine import create, lifecycle, registry, ssh, store, wait
from machine.docker import api
from machine.driver import State
from machine.errors import (
    DockerFailed,
    DriverFailed,
    EngineRefused,
    ImageCorrupt,
    NoSuchMachine,
    SSHFailed,
    StoreDamaged,
    Usage,
    WaitTimeout,
)
from machine.images import cache
from machine.paths import Image
from machine.progress import Silent
from machine.spec import Machine, Option


class Record(Silent):
    """Remembers what was shown."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, what: str) -> None:
        self.phases.append(what)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def shown() -> Record:
    return Record()


class Make(Protocol):
    """A machine that runs."""

    def __call__(self, name: str = "dev", **options: Option) -> Machine: ...


@pytest.fixture
def make(vms: Path) -> Make:
    def make(name: str = "dev", **options: Option) -> Machine:
        asked = create.draft(name, "fake", cache.current("machineos").digest, memory_mib=512, cpus=1, disk_mib=1024)
        made = create.create(asked, Silent())
        if options:
            made = machine_with(made, options)
            store.save(made)
        return made

    return make


def machine_with(machine: Machine, options: dict[str, Option]) -> Machine:
    from dataclasses import replace

    return replace(machine, options=options)


def state(vms: Path, name: str = "dev") -> str:
    return (vms / name).read_text()


def test_stop_and_start_say_whether_there_was_something_to_do(make: Make, vms: Path, shown: Record) -> None:
    make()
    assert not lifecycle.start("dev", shown)
    assert lifecycle.stop("dev", shown)
    assert state(vms) == State.STOPPED
    assert not lifecycle.stop("dev", shown)
    assert shown.phases == ["shutting down"]
    assert lifecycle.start("dev", shown)
    assert state(vms) == State.RUNNING
    assert shown.phases[1:] == [
        "preparing its keys and seed",
        "starting the virtual machine",
        f"waiting for Docker to answer on tcp://{host_of(store.load('dev'))}:2375",
        "waiting for an SSH login",
    ]


def test_a_certificate_that_comes_a_moment_late(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's port has the template's certificate for a moment; if it stays, that is an error."""
    answers = [DockerFailed("the certificates don't fit")] * 2

    def ping(*_: object, **__: object) -> bool:
        if answers:
            raise answers.pop()
        return True

    monkeypatch.setattr(api.Client, "ping", ping)
    make()
    assert answers == []
    lifecycle.stop("dev", Silent())
    monkeypatch.setattr(lifecycle, "LATE", 0.1)
    answers = [DockerFailed("the certificates don't fit")] * 1000
    with pytest.raises(DockerFailed, match="don't fit"):
        lifecycle.start("dev", Silent())
    assert answers


def test_a_driver_tells_what_takes_long(make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    lifecycle.stop("dev", shown)
    start = machine_fake.Fake.start
    monkeypatch.setattr(machine_fake.Fake, "start", lambda self: (self.say("booting cold"), start(self)))
    lifecycle.start("dev", shown)
    assert shown.notes == ["booting cold"]


def test_kill_pulls_the_plug(make: Make, vms: Path, shown: Record) -> None:
    make()
    assert lifecycle.kill("dev", shown)
    assert state(vms) == State.STOPPED
    assert not lifecycle.kill("dev", shown)


def test_keys_stay_over_a_restart(make: Make, shown: Record) -> None:
    make()
    folder = store.folder_of("dev")
    kept = [path.read_bytes() for path in (folder.ssh_key, folder.host_key, folder.known_hosts, folder.server_cert)]
    lifecycle.stop("dev", shown)
    lifecycle.start("dev", shown)
    assert kept == [
        path.read_bytes() for path in (folder.ssh_key, folder.host_key, folder.known_hosts, folder.server_cert)
    ]


def test_a_machine_that_doesnt_shut_down_is_reported_and_not_killed(make: Make, vms: Path, shown: Record) -> None:
    make(fails="stop")
    with pytest.raises(WaitTimeout, match="waiting for the machine to shut down") as caught:
        lifecycle.stop("dev", shown, timeout=0.1)
    assert caught.value.hint == "machine kill dev"
    assert caught.value.details == "the hypervisor says: Running"
    assert state(vms) == State.RUNNING


def test_a_boot_without_docker_times_out_with_the_evidence(
    make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    lifecycle.stop("dev", shown)
    store.folder_of("dev").console.write_text("\n".join(f"line {number}" for number in range(100)))
    monkeypatch.setattr(api.Client, "ping", lambda _: False)
    with pytest.raises(WaitTimeout, match="waiting for Docker to answer on tcp://") as caught:
        lifecycle.start("dev", shown, timeout=0.1)
    assert "machine logs dev" in caught.value.hint
    assert caught.value.details.splitlines() == [
        "the hypervisor says: Running",
        *(f"console: line {number}" for number in range(85, 100)),
        "--timeout allows more time",
    ]


def test_a_guest_that_went_on_is_logged_into_while_docker_is_awaited(
    make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    lifecycle.stop("dev", shown)
    order: list[str] = []
    start = machine_fake.Fake.start

    def go_on(self: machine_fake.Fake) -> bool:
        start(self)
        return True

    def ping(*_: object, **__: object) -> bool:
        # Docker doesn't answer before the login has begun.
        order.append("ping")
        return "login" in order

    def login(*_: object, **options: object) -> bool:
        order.append("login")
        assert options["expected"]
        return order.count("login") == 3

    monkeypatch.setattr(machine_fake.Fake, "start", go_on)
    monkeypatch.setattr(api.Client, "ping", ping)
    monkeypatch.setattr(ssh, "ready", login)
    lifecycle.start("dev", shown, timeout=120)
    assert order.count("login") == 3


def test_a_boot_without_ssh_times_out(make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    lifecycle.stop("dev", shown)
    monkeypatch.setattr(ssh, "ready", lambda *_, **__: False)
    with pytest.raises(WaitTimeout, match="an SSH login"):
        lifecycle.start("dev", shown, timeout=0.1)


def test_a_machine_that_stops_while_it_boots_isnt_waited_for(
    make: Make, vms: Path, shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    lifecycle.stop("dev", shown)

    def ping(*_: object, **__: object) -> bool:
        (vms / "dev").write_text(State.STOPPED)
        return False

    monkeypatch.setattr(api.Client, "ping", ping)
    began = time.monotonic()
    with pytest.raises(DriverFailed, match="stopped while it was booting"):
        lifecycle.start("dev", shown, timeout=600)
    assert time.monotonic() - began < 120


def test_a_foreign_host_key_ends_the_wait(make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    lifecycle.stop("dev", shown)

    def ready(*_: object, **__: object) -> bool:
        raise SSHFailed("another host key")

    monkeypatch.setattr(ssh, "ready", ready)
    with pytest.raises(SSHFailed):
        lifecycle.start("dev", shown, timeout=60)


def test_an_image_that_was_changed_isnt_booted(make: Make, vms: Path, shown: Record) -> None:
    made = make()
    lifecycle.stop("dev", shown)
    Image(made.image).file.write_bytes(b"changed")
    with pytest.raises(ImageCorrupt):
        lifecycle.start("dev", shown)
    assert state(vms) == State.STOPPED


def test_verbs_on_a_machine_that_isnt_there(vms: Path, shown: Record) -> None:
    for verb in (lifecycle.start, lifecycle.stop, lifecycle.kill, lifecycle.remove):
        with pytest.raises(NoSuchMachine):
            verb("dev", shown)


def test_remove_leaves_nothing(make: Make, vms: Path, shown: Record) -> None:
    make()
    lifecycle.remove("dev", shown)
    assert not store.folder_of("dev").path.exists()
    assert list(vms.iterdir()) == []


def test_a_damaged_machine_is_removed_by_force_only(make: Make, vms: Path, shown: Record) -> None:
    make()
    store.folder_of("dev").config.write_text("{")
    with pytest.raises(StoreDamaged):
        lifecycle.remove("dev", shown)
    lifecycle.remove("dev", shown, force=True)
    assert not store.folder_of("dev").path.exists()
    assert list(vms.iterdir()) == []


def test_a_machine_whose_driver_fails_or_is_gone_is_removed_by_force_only(make: Make, vms: Path, shown: Record) -> None:
    made = make("a", fails="remove")
    with pytest.raises(DriverFailed):
        lifecycle.remove("a", shown)
    lifecycle.remove("a", shown, force=True)
    assert shown.notes == ["the virtual machine may still exist: the fake fails at remove"]
    make("b")
    store.save(machine_with(made, {}).__class__(**{**vars(made), "name": "b", "driver": "gone"}))
    with pytest.raises(Usage, match='no driver "gone"'):
        lifecycle.remove("b", shown)
    lifecycle.remove("b", shown, force=True)
    assert store.names() == []


def test_a_driver_that_cant_be_loaded_keeps_no_damaged_machine(
    make: Make, vms: Path, shown: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make()
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_text("[machine.drivers]\nbroken = no_such_module:Driver\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "broken" in registry.names()
    store.folder_of("dev").config.write_text("{")
    lifecycle.remove("dev", shown, force=True)
    assert list(vms.iterdir()) == []


def test_the_tail_of_a_console(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert lifecycle.tail(log, 3) == []
    log.write_bytes(b"x" * 100_000 + b"\r\none\r\n\xff\r\nthree\r\n")
    assert lifecycle.tail(log, 3) == ["one", "\ufffd", "three"]


def test_waits_are_bounded_by_one_deadline_for_docker_and_ssh(
    make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []
    now = 1000.0

    def until(probe: object, *, timeout: float, **_: object) -> None:
        nonlocal now
        timeouts.append(timeout)
        now += 7

    make()
    lifecycle.stop("dev", shown)
    monkeypatch.setattr(wait, "until", until)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lifecycle.start("dev", shown, timeout=50)
    assert timeouts == [50, 43]


def test_dockerds_refusal_ends_the_wait(make: Make, shown: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    lifecycle.stop("dev", shown)
    last = (
        "machineos: [ 20.00] dockerd ended, its last words:\nmachineos: [ 20.00]   dockerd: failed to start daemon: x\n"
    )
    store.folder_of("dev").console.write_text(last * 2)
    monkeypatch.setattr(api.Client, "ping", lambda _: False)
    with pytest.raises(EngineRefused, match="dockerd refuses its settings: failed to start daemon: x") as caught:
        lifecycle.start("dev", shown, timeout=120)
    assert caught.value.hint == "machine set --engine-opt-rm OPTION dev"

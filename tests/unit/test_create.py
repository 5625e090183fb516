import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import machine_fake
import pytest

from machine import create, lifecycle, resources, store
from machine.driver import State
from machine.errors import CheckFailed, DriverFailed, ImageCorrupt, MachineError, MachineExists, Usage, WaitTimeout
from machine.guest.seed import Mount
from machine.images import cache
from machine.paths import Image
from machine.progress import Silent
from machine.spec import Engine, Machine, Option


@pytest.fixture(autouse=True)
def hypervisor(vms: Path) -> Path:
    return vms


def draft(name: str = "dev", **options: Option) -> Machine:
    image = cache.current("machineos").digest
    return replace(create.draft(name, "fake", image, memory_mib=512, cpus=1, disk_mib=1024), options=options)


def nothing_is_left(vms: Path) -> bool:
    return list(vms.iterdir()) == [] and [path.name for path in store.folder().glob("*")] in ([], [".lock"])


def test_a_created_machine_runs_and_has_all_its_files(vms: Path) -> None:
    made = create.create(draft(), Silent())
    folder = store.folder_of("dev")
    assert store.load("dev") == made
    assert (vms / "dev").read_text() == State.RUNNING
    assert made.address
    assert made.address.host.startswith("127.77.")
    assert {path.name for path in folder.path.iterdir()} == {
        *("machine.json", "lock", "ca.pem", "cert.pem", "key.pem", "server.pem", "server-key.pem"),
        *(
            "id_ed25519",
            "id_ed25519.pub",
            "ssh_host_ed25519_key",
            "ssh_host_ed25519_key.pub",
            "known_hosts",
            "ssh_config",
            "seed.iso",
        ),
    }
    for private in (folder.key, folder.server_key, folder.ssh_key, folder.host_key, folder.seed, folder.config):
        assert private.stat().st_mode & 0o077 == 0, private
    assert made.address.host in folder.known_hosts.read_text()  # an ordinary user gets another port, in brackets


def test_all_is_done_with_one_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one could connect to its hypervisor anew."""
    asked: list[machine_fake.Fake] = []
    for name in ("check", "on_loopback", "create", "start"):
        monkeypatch.setattr(machine_fake.Fake, name, noting(getattr(machine_fake.Fake, name), asked))
    create.create(draft(), Silent())
    assert len(asked) == 4
    assert len(set(map(id, asked))) == 1


def noting(method: Callable[[machine_fake.Fake], object], asked: list[machine_fake.Fake]) -> object:
    def call(driver: machine_fake.Fake) -> object:
        asked.append(driver)
        return method(driver)

    return call


def test_a_driver_tells_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    for step in ("create", "start"):
        done = getattr(machine_fake.Fake, step)
        monkeypatch.setattr(
            machine_fake.Fake, step, lambda self, step=step, done=done: (self.say(f"{step}: slow"), done(self))
        )
    create.create(draft(), Notes())
    assert notes[:-1] == ["a note of the fake", "create: slow", "start: slow"]


def test_without_tls_there_are_no_certificates() -> None:
    create.create(replace(draft(), tls=False), Silent())
    assert list(store.folder_of("dev").path.glob("*.pem")) == []


def test_each_draft_has_an_identity_of_its_own() -> None:
    drafts = [draft() for _ in range(50)]
    assert len({(one.uuid, one.mac) for one in drafts}) == 50
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", one.mac) for one in drafts)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", drafts[0].created)


@pytest.mark.parametrize(("step", "error"), [("check", CheckFailed), ("create", DriverFailed), ("start", DriverFailed)])
def test_a_failing_driver_leaves_nothing(step: str, error: type[MachineError], vms: Path) -> None:
    with pytest.raises(error, match=f"fails at {step}"):
        create.create(draft(fails=step), Silent())
    assert nothing_is_left(vms)


def test_a_machine_that_doesnt_come_up_leaves_nothing(vms: Path) -> None:
    with pytest.raises(WaitTimeout, match="Docker"):
        create.create(draft(fails="boot"), Silent(), timeout=0.1)
    assert nothing_is_left(vms)


def test_a_check_that_fails_has_written_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "host_memory_mib", lambda: (1024, 512))
    with pytest.raises(CheckFailed):
        create.create(replace(draft(), memory_mib=2048), Silent())
    assert not (store / "machines").exists()


@pytest.mark.parametrize(
    "engine", [Engine(options=("hosts=x",)), Engine(environment=("x",)), Engine(labels=("provider=me",))]
)
def test_bad_settings_of_the_engine_are_found_before_something_is_made(engine: Engine, store: Path) -> None:
    with pytest.raises(Usage):
        create.create(replace(draft(), engine=engine), Silent())
    assert not (store / "machines").exists()


def test_an_image_that_was_changed_leaves_nothing(vms: Path) -> None:
    asked = draft()
    Image(asked.image).file.write_bytes(b"changed")
    with pytest.raises(ImageCorrupt):
        create.create(asked, Silent())
    assert nothing_is_left(vms)


def test_an_interrupt_leaves_nothing(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lifecycle, "wait_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create.create(draft(), Silent())
    assert nothing_is_left(vms)


def test_a_name_that_is_taken_changes_nothing(vms: Path) -> None:
    made = create.create(draft(), Silent())
    with pytest.raises(MachineExists):
        create.create(draft(), Silent())
    assert store.load("dev") == made
    assert (vms / "dev").read_text() == State.RUNNING


def test_of_two_at_once_one_gets_the_name(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = at_once(["dev"] * 4)
    assert [end for end in ends if end is None] == [None]
    assert all(isinstance(end, MachineExists) for end in ends if end)
    assert store.names() == ["dev"]
    assert (vms / "dev").read_text() == State.RUNNING


def test_ten_at_once_get_addresses_of_their_own() -> None:
    names = [f"m{number}" for number in range(10)]
    assert at_once(names) == [None] * 10
    assert store.names() == names
    assert len({store.load(name).address for name in names}) == 10


def at_once(names: list[str]) -> list[BaseException | None]:
    """How the creation of each name ended, all begun at the same moment."""
    barrier = threading.Barrier(len(names))
    ends: list[BaseException | None] = [ValueError("didn't end")] * len(names)

    def work(number: int) -> None:
        try:
            asked = draft(names[number])
            barrier.wait(timeout=120)
            create.create(asked, Silent())
            ends[number] = None
        except BaseException as error:
            ends[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return ends


def test_a_driver_with_a_network_of_its_own_gets_no_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from machine.spec import Address

    monkeypatch.setattr(machine_fake.Fake, "loopback", False)
    monkeypatch.setattr(machine_fake.Fake, "address", lambda self: Address("192.168.99.100"))
    made = create.create(draft(), Silent())
    assert made.address is None
    assert store.folder_of("dev").known_hosts.read_text().startswith("192.168.99.100 ")


def test_what_the_host_is_short_of_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    class Shown(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    monkeypatch.setattr(resources, "host_memory_mib", lambda: (8192, 256))
    create.create(draft(), Shown())
    assert "the host may swap" in notes[0]
    assert notes[1] == "a note of the fake"


def test_a_machine_says_which_folders_of_the_host_it_shares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`docker run -v` makes an empty folder elsewhere, without a word."""
    monkeypatch.setenv("HOME", str(tmp_path))
    notes: list[str] = []

    class Shown(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    create.create(draft(), Shown())
    assert notes[-1].startswith("it shares no folder of this computer")
    assert "the driver qemu" in notes[-1]
    monkeypatch.setattr(machine_fake.Fake, "shares", True)
    create.create(replace(draft(), name="second"), Shown())
    assert notes[-1].endswith("; share one: machine mount add second DIR")
    monkeypatch.setattr(machine_fake.Fake, "mounts", lambda self: (Mount("tag", "/home/ann", "vboxsf"),))
    create.create(replace(draft(), name="third"), Shown())
    assert notes[-1] == "docker run -v shows files of this computer below /home/ann, and empty folders elsewhere"


def test_an_unknown_driver(vms: Path) -> None:
    with pytest.raises(Usage, match='there is no driver "none-such"') as caught:
        create.create(replace(draft(), driver="none-such"), Silent())
    assert "fake" in caught.value.details
    assert nothing_is_left(vms)


@pytest.mark.parametrize("name", ["../x", "", "."])
def test_a_bad_name_is_refused_before_a_path_is_made_of_it(name: str) -> None:
    with pytest.raises(Usage):
        create.create(draft(name), Silent())


def test_a_temporary_machine_lets_in_and_is_gone_after_the_block(vms: Path) -> None:
    others = create.create(draft("other"), Silent())
    with create.temporary(draft(), Silent(), timeout=5) as instance:
        assert instance.driver.state() is State.RUNNING
        assert instance.shell().ready()
        assert instance.address.host != others.address.host if others.address else False
        assert store.names() == ["other"]  # it is listed nowhere
    assert [path.name for path in vms.iterdir()] == ["other"]
    assert {path.name for path in store.folder().glob("*")} <= {"other", ".lock"}


def test_a_temporary_machine_is_gone_when_its_block_fails(vms: Path) -> None:
    with pytest.raises(KeyboardInterrupt), create.temporary(draft(), Silent(), timeout=5):
        raise KeyboardInterrupt
    assert nothing_is_left(vms)


def test_a_temporary_machine_that_lets_nobody_in_is_gone(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.ssh.ready", lambda *_, **__: False)
    with pytest.raises(WaitTimeout, match="SSH login"), create.temporary(draft(), Silent(), timeout=0.2):
        raise AssertionError("it isn't ready")
    assert nothing_is_left(vms)

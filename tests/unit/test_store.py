import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from fake_fixtures import host_of
from filelock import FileLock

from machine import files, leftovers, spec, store
from machine.errors import MachineError, MachineExists, NoSuchMachine, StoreDamaged, Usage, WaitTimeout
from machine.paths import MachineFolder
from machine.spec import Address, Machine

Undone = list[tuple[str, str]]
Undo = Callable[[Machine, MachineFolder], None]


def machine(name: str = "dev", **fields: Any) -> Machine:
    sizes = {"memory_mib": 1, "cpus": 1, "disk_mib": 1}
    asked: dict[str, Any] = {"driver": "fake", "uuid": name, "mac": "", "image": "", **sizes}
    return Machine(name=name, **{**asked, **fields})


@pytest.fixture(autouse=True)
def place(store: Path) -> Path:
    return store


@pytest.fixture
def undone() -> Undone:
    return []


@pytest.fixture
def undo(undone: Undone) -> Undo:
    return lambda machine, folder: undone.append((machine.name, folder.name))


def make(name: str = "dev", **fields: object) -> None:
    with store.reserve(name, lambda others: machine(name, **fields), lambda *_: None):
        pass


def broken(*_: object) -> NoReturn:
    raise ZeroDivisionError


def entries(place: Path) -> list[str]:
    """The files of the store, without the lock that all commands share."""
    return sorted(path.name for path in (place / "machines").iterdir() if path.name != ".lock")


def left_over(name: str, text: str | None = None) -> MachineFolder:
    """A home as a create that is killed leaves it."""
    folder = store.folder_of(name)
    files.make_folder(folder.path)
    folder.creating.write_text(spec.dumps(machine(name)) if text is None else text)
    folder.lock.touch()
    (folder / "disk").touch()
    return folder


def test_a_machine_is_there_when_its_block_ends_well(place: Path) -> None:
    with store.reserve("dev", lambda others: machine(), lambda *_: None) as (made, folder):
        assert made == machine()
        assert store.names() == []
        assert store.read(folder) == machine()
        assert not store.exists("dev")
    assert store.names() == ["dev"]
    assert store.load("dev") == machine()
    assert sorted(path.name for path in (place / "machines" / "dev").iterdir()) == ["lock", "machine.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_else_nothing_is(error: type[BaseException], place: Path, undo: Undo, undone: Undone) -> None:
    with pytest.raises(error), store.reserve("dev", lambda others: machine(), undo):
        raise error
    assert undone == [("dev", "dev")]
    assert entries(place) == []


def test_nothing_is_left_when_no_machine_can_be_built(place: Path, undo: Undo, undone: Undone) -> None:
    with pytest.raises(ZeroDivisionError), store.reserve("dev", broken, undo):
        pytest.fail("not reached")
    assert (entries(place), undone) == ([], [])


def test_files_are_for_their_owner_only(place: Path) -> None:
    make()
    for path in [place / "machines", *(place / "machines").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_machine_is_built_knowing_all_others() -> None:
    make("a", address=Address("127.77.0.2"))
    seen: list[Machine] = []
    with store.reserve("b", lambda others: machine("b"), lambda *_: None):

        def build(others: list[Machine]) -> Machine:
            seen.extend(others)
            return machine("c")

        with store.reserve("c", build, lambda *_: None):
            pass
    assert sorted(other.name for other in seen) == ["a", "b"]


def test_a_name_is_given_once(undo: Undo) -> None:
    make()
    with pytest.raises(MachineExists), store.reserve("dev", lambda others: machine(), undo):
        pytest.fail("not reached")
    assert store.load("dev") == machine()


def test_a_name_is_given_once_while_it_is_reserved(undo: Undo, undone: Undone) -> None:
    with store.reserve("dev", lambda others: machine(), undo):
        with pytest.raises(MachineExists), store.reserve("dev", lambda others: machine(), undo):
            pytest.fail("not reached")
        assert list(store.sweep(undo)) == []
    assert (store.names(), undone) == (["dev"], [])


def test_of_many_threads_each_gets_another_address(place: Path) -> None:
    barrier = threading.Barrier(10)

    def build(others: list[Machine], name: str) -> Machine:
        taken = {other.address.host for other in others if other.address}
        return machine(
            name, address=Address(next(f"127.77.0.{n}" for n in range(2, 255) if f"127.77.0.{n}" not in taken))
        )

    def work(name: str) -> None:
        barrier.wait(timeout=120)
        with store.reserve(name, lambda others: build(others, name), lambda *_: None):
            pass

    threads = [threading.Thread(target=work, args=(f"m{number}",)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    hosts = {host_of(store.load(name)) for name in store.names()}
    assert len(hosts) == 10


def test_what_a_killed_create_left_is_swept(place: Path, undo: Undo, undone: Undone) -> None:
    make("kept")
    left_over("dev")
    assert list(store.sweep(undo)) == [("dev", None)]
    assert (undone, entries(place)) == ([("dev", "dev")], ["kept"])
    assert list(store.sweep(undo)) == []


@pytest.mark.parametrize("text", ["", "{", "\0", '{"format": 99}'])
def test_leftovers_that_cant_be_read_are_swept(text: str, place: Path, undo: Undo) -> None:
    left_over("dev", text)
    assert list(store.sweep(undo)) == [("dev", None)]
    assert entries(place) == []


def test_leftovers_that_are_no_text_are_swept(place: Path, undo: Undo) -> None:
    left_over("dev").creating.write_bytes(b"\xff\xfe")
    assert list(store.sweep(undo)) == [("dev", None)]
    assert entries(place) == []


def test_a_create_killed_before_it_wrote_a_file_is_swept(place: Path, undo: Undo) -> None:
    for name, files_ in (("a", []), ("b", ["lock"]), ("c", ["lock", ".creating.json.0f.tmp"])):
        folder = store.folder_of(name)
        files.make_folder(folder.path)
        for file in files_:
            (folder / file).touch()
    assert sorted(name for name, _ in store.sweep(undo)) == ["a", "b", "c"]
    assert entries(place) == []


def test_what_a_killed_removal_left_is_swept_in_silence(place: Path, undo: Undo, undone: Undone) -> None:
    make()
    (place / "machines" / "dev").rename(place / "machines" / ".trash-dev-0123abcd")
    assert list(store.sweep(undo)) == []
    assert (entries(place), undone) == ([], [])


def test_what_is_on_its_way_out_is_no_machine(place: Path) -> None:
    make()
    (place / "machines" / "dev").rename(place / "machines" / ".trash-dev-0123abcd")
    assert (store.names(), store.all_known()) == ([], [])


def test_a_folder_of_another_program_is_left_alone(place: Path, undo: Undo) -> None:
    # docker-machine keeps its machines under the same variable, MACHINE_STORAGE_PATH.
    foreign = place / "machines" / "old"
    foreign.mkdir(parents=True)
    (foreign / "config.json").write_text("{}")
    (foreign / "disk.vmdk").touch()
    assert list(store.sweep(undo)) == []
    assert sorted(path.name for path in foreign.iterdir()) == ["config.json", "disk.vmdk"]
    assert store.names() == []
    with pytest.raises(MachineExists):
        make("old")
    assert sorted(path.name for path in foreign.iterdir()) == ["config.json", "disk.vmdk"]


def test_leftovers_that_cant_be_undone_stay_and_are_told(place: Path, undo: Undo) -> None:
    def fails(machine: Machine, folder: MachineFolder) -> None:
        if machine.name == "b":
            raise MachineError("no hypervisor")

    for name in "abc":
        left_over(name)
    told = {name: error and error.message for name, error in store.sweep(fails)}
    assert told == {"a": None, "b": "no hypervisor", "c": None}
    assert entries(place) == ["b"]
    assert list(store.sweep(undo)) == [("b", None)]


def test_while_one_command_clears_up_others_go_on(place: Path, undo: Undo, undone: Undone) -> None:
    """VBoxManage may take minutes: the store's lock isn't held meanwhile."""
    left_over("dev")
    entered, leave = threading.Event(), threading.Event()

    def slow(machine: Machine, folder: MachineFolder) -> None:
        entered.set()
        leave.wait(120)
        undo(machine, folder)

    swept: list[tuple[str, object]] = []
    sweeper = threading.Thread(target=lambda: swept.extend(store.sweep(slow)))
    sweeper.start()
    try:
        assert entered.wait(120)
        make("other")
        assert list(store.sweep(undo)) == [], "somebody is at work on it"
        again = threading.Thread(target=make)
        again.start()
        again.join(0.1)
        assert again.is_alive(), "the name is free in a moment"
    finally:
        leave.set()
        sweeper.join(120)
    again.join(120)
    assert (swept, undone) == ([("dev", None)], [("dev", "dev")])
    assert store.names() == ["dev", "other"]
    assert entries(place) == ["dev", "other"]


def test_one_that_isnt_cleared_in_time_keeps_its_name(place: Path, undo: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left_over("dev")
    monkeypatch.setattr(leftovers, "SWEEP", 0.05)
    said: list[str] = []
    with FileLock(folder.lock):
        with pytest.raises(MachineExists), store.reserve("dev", lambda others: machine(), undo, said.append):
            pytest.fail("not reached")  # a create is at work
        (folder / "sweeping").touch()
        with (
            pytest.raises(WaitTimeout, match="an interrupted create of dev"),
            store.reserve("dev", lambda others: machine(), undo, said.append),
        ):
            pytest.fail("not reached")
    assert said == ["waiting for another command to clear what an interrupted create of dev has left"]
    make()
    assert entries(place) == ["dev"]


def test_the_stores_lock_is_waited_for_with_a_deadline(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("a")
    monkeypatch.setattr(leftovers, "PATIENCE", 0.05)
    with (
        FileLock(store.folder() / ".lock"),
        pytest.raises(WaitTimeout, match="another command to finish with the store") as caught,
    ):
        make("b")
    assert caught.value.hint.endswith(f"lsof {store.folder() / '.lock'}")
    assert store.names() == ["a"]


def test_leftovers_make_room_for_a_machine_of_the_name(undo: Undo, undone: Undone) -> None:
    left_over("dev")
    with store.reserve("dev", lambda others: machine(), undo):
        pass
    assert (store.names(), undone) == (["dev"], [("dev", "dev")])


def test_a_scratch_home_lives_as_long_as_its_block(
    place: Path, undo: Callable[[Machine, MachineFolder], None], undone: Undone
) -> None:
    with store.scratch("key", machine("template"), undo) as folder:
        assert store.read(folder) == machine("template")
        assert (store.names(), list(store.sweep(undo)), undone) == ([], [], [])
        with pytest.raises(MachineExists), store.scratch("key", machine("template"), undo):
            pytest.fail("not reached")
    assert (undone, entries(place)) == ([("template", folder.name)], [])
    with pytest.raises(KeyboardInterrupt), store.scratch("key", machine("template"), undo):
        raise KeyboardInterrupt
    assert (len(undone), entries(place)) == (2, [])


def test_a_scratch_home_that_was_left_is_swept(
    place: Path, undo: Callable[[Machine, MachineFolder], None], undone: Undone
) -> None:
    folder = MachineFolder(place / "machines" / ".scratch-key")
    files.make_folder(folder.path)
    folder.creating.write_text(spec.dumps(machine("template")))
    # Silently: the user never made a machine of that name.
    assert list(store.sweep(undo)) == []
    assert (undone, entries(place)) == ([("template", ".scratch-key")], [])


def test_a_failing_undo_leaves_what_a_sweep_can_clear(place: Path, undo: Undo, undone: Undone) -> None:
    def fails(machine: Machine, folder: MachineFolder) -> None:
        raise MachineError("no hypervisor")

    # Whoever keeps the error keeps the lock of its frames alive.
    with (
        pytest.raises(MachineError, match="no hypervisor") as caught,
        store.reserve("dev", lambda others: machine(), fails),
    ):
        raise ValueError
    assert caught.value.__traceback__
    assert [name for name, _ in store.sweep(undo)] == ["dev"]
    assert (entries(place), undone) == ([], [("dev", "dev")])


def test_changing_holds_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with store.changing("dev") as held:
        assert held == machine()
        for other in (store.changing("dev"), store.removing("dev", lambda folder: None)):
            with pytest.raises(MachineError, match="another command is using"), other:
                pytest.fail("not reached")
    with store.changing("dev"):
        pass


def test_changing_a_machine_that_isnt_there_makes_nothing(place: Path) -> None:
    for verb in (store.changing("dev"), store.removing("dev", lambda folder: None)):
        with pytest.raises(NoSuchMachine), verb:
            pytest.fail("not reached")
    assert not (place / "machines").exists()


def test_whoever_waits_for_a_machine_that_is_then_removed_learns_that(place: Path) -> None:
    make()
    removed = threading.Event()
    errors: list[Exception] = []

    def wait() -> None:
        try:
            with store.changing("dev"):
                pytest.fail("not reached")
        except NoSuchMachine as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    with store.removing("dev", lambda folder: removed.set()):
        waiting.start()
    waiting.join(timeout=120)
    assert removed.is_set()
    assert len(errors) == 1
    assert entries(place) == []


def test_removing_calls_remove_and_then_clears_the_home(place: Path) -> None:
    make()
    seen = []
    with store.removing("dev", lambda folder: seen.append(folder.config.exists())):
        pass
    assert (seen, entries(place)) == ([True], [])


def test_a_failing_removal_keeps_the_machine() -> None:
    make()
    with pytest.raises(ZeroDivisionError), store.removing("dev", broken):
        pass
    assert store.load("dev") == machine()
    with store.changing("dev"):
        pass


def test_save_replaces_the_machine() -> None:
    make()
    store.save(machine(memory_mib=4096))
    assert store.load("dev").memory_mib == 4096


def test_what_cant_be_read_is_damaged_and_hides_no_other(place: Path) -> None:
    make("good")
    for name, raw in (("text", b"{"), ("bytes", b"\xff\xfe"), ("empty", b"")):
        make(name)
        store.folder_of(name).config.write_bytes(raw)
    make("folder")
    store.folder_of("folder").config.unlink()
    store.folder_of("folder").config.mkdir()
    for name in ("text", "bytes", "empty", "folder"):
        with pytest.raises(StoreDamaged) as caught:
            store.load(name)
        assert str(store.folder_of(name).config) in caught.value.message
        assert caught.value.hint.endswith(f"machine rm -f {name}")
    assert [known.name for known in store.all_known()] == ["good"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_cant_be_read_at_the_moment_is_no_reason_to_remove_the_machine(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise OSError(number, "busy", str(path))

    make()
    monkeypatch.setattr(files, "read_text", refuse)
    with pytest.raises(StoreDamaged) as caught:
        store.load("dev")
    assert caught.value.hint == "try again: machine status dev"


def test_on_windows_a_folder_that_a_shell_stands_in_is_emptied(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be renamed, nor removed: it is no machine any more, and a later command sweeps it."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "it is being used by another process")

    make()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(os, "rmdir", refuse)
    with store.removing("dev", lambda folder: None):
        pass
    assert store.names() == []
    assert [path.name for path in place.glob("machines/dev/*")] == []
    assert leftovers.is_left_over(store.folder_of("dev"))


def test_a_copied_folder_isnt_a_second_machine() -> None:
    make("dev")
    copy = store.folder_of("copy")
    copy.path.mkdir()
    copy.config.write_text(store.folder_of("dev").config.read_text())
    with pytest.raises(StoreDamaged, match='belongs to the machine "dev"') as caught:
        store.load("copy")
    assert caught.value.hint == "remove the copy: machine rm -f copy"


def test_a_folder_that_was_moved_is_no_copy_to_remove() -> None:
    make("dev")
    moved = store.folder_of("moved").path
    home = store.folder_of("dev").path.rename(moved).with_name("dev")
    with pytest.raises(StoreDamaged, match='belongs to the machine "dev"') as caught:
        store.load("moved")
    assert caught.value.hint == f"give it its name again: mv {moved} {home}"


def test_a_store_that_isnt_there_is_empty(place: Path, undo: Undo) -> None:
    place.rmdir()
    assert (store.names(), store.all_known(), list(store.sweep(undo))) == ([], [], [])
    with pytest.raises(NoSuchMachine):
        store.load("dev")
    assert not place.exists()


def test_stray_files_among_the_machines_are_no_machines(place: Path, undo: Undo) -> None:
    make("dev")
    (place / "machines" / ".DS_Store").touch()
    (place / "machines" / "note").touch()
    assert (store.names(), list(store.sweep(undo))) == (["dev"], [])


def test_names_are_in_natural_order() -> None:
    for name in ("b", "a10", "a2", "A1", "a", "2a", "10", "ab"):
        make(name)
    assert store.names() == ["2a", "10", "a", "A1", "a2", "a10", "ab", "b"]
    assert sorted(["a²", "a2"], key=store.natural) == ["a2", "a²"], "a digit that is no number"


def test_a_name_cant_leave_the_store() -> None:
    for name in ("../x", "", "/etc"):
        with pytest.raises(Usage):
            store.folder_of(name)


def test_the_lock_is_free_after_each_end(undo: Undo) -> None:
    make("a")
    with contextlib.suppress(ValueError), store.reserve("b", lambda others: machine("b"), undo):
        raise ValueError
    with FileLock(store.folder_of("a").lock, timeout=0), FileLock(store.folder() / ".lock", timeout=0):
        pass
    assert entries(store.folder().parent) == ["a"]


def test_names_that_differ_in_case_only_are_one() -> None:
    make("Web")
    with pytest.raises(MachineExists, match='"Web"'):
        make("web")


def test_another_spelling_is_no_machine_where_case_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: each file is found under any spelling."""
    make("web")
    folder = store.folder_of
    monkeypatch.setattr(store, "folder_of", lambda name: folder(name.lower()))
    assert store.exists("web")
    assert not store.exists("WEB")
    assert not store.has_folder("WEB")
    for act in (
        lambda: store.load("WEB"),
        lambda: store.changing("WEB").__enter__(),
        lambda: store.removing("WEB", lambda _: None).__enter__(),
    ):
        with pytest.raises(NoSuchMachine):
            act()
    assert store.load("web").name == "web"


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16"])
def test_a_record_that_an_editor_of_windows_saved_is_read(form: str) -> None:
    make(tls_sans=("bücher.test",))
    config = store.folder_of("dev").config
    text = config.read_text(encoding="utf-8").replace("\n", "\r\n")
    config.write_bytes(text.encode(form))
    assert store.load("dev").tls_sans == ("bücher.test",)
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreDamaged, match="isn't UTF-8"):
        store.load("dev")


def test_a_create_that_ends_while_it_is_looked_for_is_seen(undo: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address would be given to another machine."""
    with store.reserve("dev", lambda others: machine(), undo) as (_, folder):
        read = store._read

        def end_after(path: Path) -> Machine:
            try:
                return read(path)
            except FileNotFoundError:
                if path == folder.config:
                    files.move(folder.creating, folder.config)
                    monkeypatch.setattr(store, "_read", read)
                raise

        monkeypatch.setattr(store, "_read", end_after)
        assert [known.name for known in store.all_known()] == ["dev"]
        files.move(folder.config, folder.creating)

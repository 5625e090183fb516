"""Starting clones of a template: with a real qemu-img, and stand-ins for QEMU and its guest."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import Recorder, guest
from fake_qmp import HANG_UP, Server, agent, channel, monitor
from fake_template import another, make
from machine.drivers.qemu import Qemu, clone, failures, resume, template, template_maker
from machine.drivers.qemu.argv import CLONE_OF, DISK
from machine.drivers.qemu.process import Process
from machine.drivers.qemu.qmp import Qmp
from machine.drivers.qemu.template import Template
from machine.drivers.qemu.vm import Vm

from machine import run
from machine.errors import DriverFailed, EngineRefused, MachineError, WaitTimeout
from machine.paths import Image, MachineFolder
from machine.spec import Engine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


def about_disk(folder: MachineFolder) -> dict[str, Any]:
    found = json.loads(run.run(["qemu-img", "info", "--output=json", folder / DISK]).stdout)
    assert isinstance(found, dict)
    return found


# create: the disk.


def test_the_disk_lies_over_the_templates(
    larger: Qemu, folder: MachineFolder, origin: Template, said: list[str]
) -> None:
    larger.create()
    assert (folder / clone.BASE_DISK).samefile(origin.disk)
    found = about_disk(folder)
    assert (found["virtual-size"], found["backing-filename"]) == (template_maker.DISK_MIB << 20, clone.BASE_DISK)
    assert (folder / CLONE_OF).read_text() == str(origin.folder)
    assert said == []
    origin.remove()
    run.run(["qemu-img", "check", "-q", folder / DISK])


def test_a_file_system_without_links(
    larger: Qemu, folder: MachineFolder, origin: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    clone.lay_disk(larger.vm)
    assert not (folder / clone.BASE_DISK).samefile(origin.disk)
    run.run(["qemu-img", "check", "-q", folder / DISK])


def is_plain(larger: Qemu, folder: MachineFolder) -> bool:
    """Whether it will boot cold, from an empty disk of the full size."""
    found = about_disk(folder)
    assert found["virtual-size"] == larger.machine.disk_mib << 20
    return "backing-filename" not in found and not (folder / CLONE_OF).exists()


@pytest.mark.parametrize("way", ["proxy", "engine-env"])
def test_a_password_never_gets_into_a_template(
    larger: Qemu, folder: MachineFolder, store: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "proxy":
        monkeypatch.setenv("https_proxy", "http://me:secret@proxy.test:3128")
    else:
        larger = another(larger, said, engine=Engine(environment=("HTTP_PROXY=http://me:secret@proxy.test",)))
    larger.create()
    assert is_plain(larger, folder)
    assert said == [
        "no template (the proxy's URL holds a password, and templates must not hold passwords): booting cold"
    ]
    assert list(template.all_of(store)) == []


@pytest.mark.parametrize(
    "error", [DriverFailed("no room"), OSError("no room"), WaitTimeout("the template to boot", 300)]
)
def test_without_a_template_a_machine_boots_cold(
    larger: Qemu, folder: MachineFolder, store: Path, said: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise error

    monkeypatch.setattr(template_maker, "make", fails)
    larger.create()
    assert is_plain(larger, folder)
    assert said == [f"no template ({error}): booting cold"]
    assert list(template.all_of(store)) == []


def test_cold_and_images_that_cant_be_cloned(
    larger: Qemu, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clone, "lay_disk", lambda _: pytest.fail("cloned"))
    another(larger, [], options={"accelerator": "tcg", "cold": True}).create()
    assert is_plain(larger, folder)
    (folder / DISK).unlink()
    Image(larger.machine.image).clones.unlink()
    larger.create()
    assert is_plain(larger, folder)


# start.


@pytest.fixture
def laid(larger: Qemu, origin: Template) -> Qemu:
    larger.create()
    return larger


class Clone:
    """The QEMU of a clone and its guest. answer: the guest's answer to the message that it is a clone."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.answer: bytes | object = b"dated\nresumed\n"
        self.inside = True
        self.status = "completed"
        self.monitor: Server
        self.agent: Server
        self.lines: list[bytes]

    def asked(self, command: str) -> list[Any]:
        return [message.get("arguments") for message in self.monitor.asked if message["execute"] == command]


@pytest.fixture
def cloned(folder: MachineFolder, recorder: Recorder) -> Iterator[Clone]:
    """What answers once QEMU was started; nothing does any more when it is started again."""
    made = Clone()
    answers = {
        "query-migrate": lambda _: {"status": made.status},
        "query-status": {"status": "running"},
        "quit": [{"return": {}}, HANG_UP],
    }
    with contextlib.ExitStack() as stack:

        def launched(words: list[str]) -> None:
            stack.close()
            if "-incoming" not in words:
                return
            for socket in folder.path.glob("*.sock"):
                socket.unlink()
            made.monitor = stack.enter_context(monitor(folder / "qmp.sock", answers | made.answers))
            made.lines = stack.enter_context(channel(folder / "resume.sock", lambda line: made.answer))
            if made.inside:
                made.agent = stack.enter_context(agent(folder / "agent.sock", guest))

        recorder.launched = launched
        yield made


def test_a_clone_is_started_from_the_templates_memory(
    laid: Qemu, folder: MachineFolder, origin: Template, cloned: Clone, recorder: Recorder, detached: list[list[str]]
) -> None:
    assert laid.start()
    (words,) = recorder.launches
    backend = f"memory-backend-file,id=ram,size=512M,mem-path={origin.memory},share=off,readonly=on,rom=off"
    assert backend in words
    assert words[words.index("-incoming") + 1] == "defer"
    commands = cloned.monitor.commands
    assert commands.index("migrate-incoming") < commands.index("cont") < commands.index("qom-set")
    assert cloned.asked("migrate-set-capabilities") == [
        {"capabilities": [{"capability": "x-ignore-shared", "state": state}]} for state in (True, False)
    ]
    room = {"path": "/machine/peripheral/memory", "property": "requested-size", "value": 512 << 20}
    assert cloned.asked("qom-set") == [room]
    assert cloned.asked("block_resize") == [{"node-name": "data", "size": 30 << 30}]
    (line,) = cloned.lines
    word, now, mac, larger, more_mib = line.decode().split()
    assert (word, mac, larger, more_mib) == ("resume", "52:54:00:00:00:01", "yes", "512")
    assert int(now) > 1_700_000_000
    assert cloned.agent.commands == ["guest-sync-delimited", "guest-set-time"]
    assert not (folder / CLONE_OF).exists()
    assert len(detached) == 1


def test_a_clone_as_large_as_its_template_is_given_nothing(
    larger: Qemu, store: Path, cloned: Clone, detached: list[list[str]]
) -> None:
    small = another(larger, [], memory_mib=512, disk_mib=template_maker.DISK_MIB)
    template.obtain(store, template_maker.recipe_for(small.vm), lambda folder: not make(folder), pytest.fail)
    small.create()
    cloned.inside = False  # its agent may be late: the clock is right to the second
    small.start()
    assert not cloned.asked("qom-set") + cloned.asked("block_resize")
    assert cloned.lines[0].decode().split()[3:] == ["no", "0"]


def test_memory_that_cant_be_opened_read_only_is_never_given_back(
    larger: Qemu, store: Path, cloned: Clone, recorder: Recorder, detached: list[list[str]]
) -> None:
    template.obtain(store, template_maker.recipe_for(larger.vm), lambda folder: not make(folder), pytest.fail)
    larger.create()
    larger.start()
    (words,) = recorder.launches
    assert not [word for word in words if "readonly=on" in word]
    assert "virtio-balloon-pci,id=balloon,free-page-reporting=off" in words


def boots_cold(laid: Qemu, folder: MachineFolder, recorder: Recorder) -> bool:
    assert "-incoming" not in recorder.launches[-1]
    assert "memory-backend-ram,id=ram,size=1024M" in recorder.launches[-1]
    assert not (folder / clone.BASE_DISK).exists()
    return is_plain(laid, folder)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"the seed could not be read\n", "didn't apply its identity: the seed could not be read"),
        (b"\xff\n", "didn't apply its identity: �"),
        (b"", "didn't apply its identity: no answer in time"),
        (b"resu", "didn't apply its identity: no answer in time"),
        (HANG_UP, "didn't apply its identity: it went away"),
    ],
)
def test_a_clone_that_takes_no_identity_is_booted_cold(
    laid: Qemu,
    folder: MachineFolder,
    cloned: Clone,
    recorder: Recorder,
    detached: list[list[str]],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | object,
    why: str,
) -> None:
    if "no answer" in why:
        monkeypatch.setattr(resume, "TIMEOUT", 0.3)
    cloned.answer = answer
    laid.start()
    assert cloned.monitor.commands[-1] == "quit"
    assert len(recorder.launches) == 2
    assert boots_cold(laid, folder, recorder)
    (note,) = said
    assert why in note
    assert len(detached) == 1


def spoil(template: Template) -> None:
    template.memory.write_bytes(b"changed")


def lose_state(template: Template) -> None:
    template.state.unlink()


@pytest.mark.parametrize("damage", [spoil, lose_state, Template.remove])
def test_a_template_that_is_damaged_meanwhile(
    laid: Qemu,
    folder: MachineFolder,
    origin: Template,
    recorder: Recorder,
    detached: list[list[str]],
    said: list[str],
    damage: Callable[[Template], None],
) -> None:
    damage(origin)
    assert not laid.start()
    assert len(recorder.launches) == 1
    assert boots_cold(laid, folder, recorder)
    assert "is damaged" in said[0]


def test_a_qemu_that_cant_load_a_whole_template_is_remembered(
    larger: Qemu,
    folder: MachineFolder,
    store: Path,
    origin: Template,
    cloned: Clone,
    recorder: Recorder,
    detached: list[list[str]],
    said: list[str],
) -> None:
    cloned.status = "failed"
    for times in range(1, failures.LOADS + 1):
        (folder / DISK).unlink(missing_ok=True)
        larger.create()
        larger.start()
        assert boots_cold(larger, folder, recorder)
        assert "couldn't save or load the state" in said[-1]
        assert origin.about(), "it isn't damaged, and stays"
        assert [bool(one.failed) for one in template.list_kept(store)] == [times == failures.LOADS]
    assert cloned.lines == []
    (folder / DISK).unlink()
    larger.create()
    assert is_plain(larger, folder)
    assert "QEMU couldn't load it" in said[-1]
    assert f"machine template rm {origin.folder.name}" in said[-1]


@pytest.mark.parametrize(("answer", "counts"), [(b"dockerd could not be given an id\n", True), (b"resu", False)])
def test_a_template_whose_guest_refuses_is_remembered(
    larger: Qemu,
    folder: MachineFolder,
    origin: Template,
    cloned: Clone,
    detached: list[list[str]],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    counts: bool,
) -> None:
    """One that is too slow isn't."""
    if not counts:
        monkeypatch.setattr(resume, "TIMEOUT", 0.3)
    cloned.answer = answer
    for _ in range(failures.LOADS):
        (folder / DISK).unlink(missing_ok=True)
        larger.create()
        larger.start()
    (folder / DISK).unlink()
    larger.create()
    assert (folder / CLONE_OF).exists() is not counts
    assert ("dockerd could not be given an id; tried again a day later" in said[-1]) is counts


def test_a_clone_that_is_loaded_ends_the_count(
    larger: Qemu, folder: MachineFolder, origin: Template, cloned: Clone, detached: list[list[str]], said: list[str]
) -> None:
    for status in ["failed"] * (failures.LOADS - 1) + ["completed", "failed"]:
        cloned.status = status
        (folder / DISK).unlink(missing_ok=True)
        larger.create()
        larger.start()
    larger.create()
    assert failures.find(origin.folder.parent, origin.folder.name).loads == 1


def test_a_qemu_that_ended_while_it_loaded(
    laid: Qemu, folder: MachineFolder, origin: Template, cloned: Clone, detached: list[list[str]], said: list[str]
) -> None:
    """QEMU before 9.1 says no more than that; so does one that the host has ended for want of memory."""
    cloned.answers["query-migrate"] = [HANG_UP]
    laid.start()
    assert origin.about()
    assert failures.find(origin.folder.parent, origin.folder.name).loads == 1


@pytest.mark.parametrize("command", ["migrate-set-parameters", "migrate-incoming", "query-migrate", "cont"])
def test_a_qemu_that_is_slow_costs_no_template(
    laid: Qemu,
    folder: MachineFolder,
    store: Path,
    origin: Template,
    cloned: Clone,
    recorder: Recorder,
    detached: list[list[str]],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    monkeypatch.setattr(clone, "Qmp", partial(Qmp, timeout=0.2))
    monkeypatch.setattr(clone, "END", 0.05)
    monkeypatch.setattr(Process, "find", lambda self: "it is at work")
    cloned.answers[command] = []
    with pytest.raises(DriverFailed, match=r"no answer on qmp\.sock"):
        clone.start(laid.vm)
    assert origin.about()
    assert list(failures.all_of(origin.folder.parent)) == []


def test_a_template_whose_memory_has_changed_goes(
    laid: Qemu,
    folder: MachineFolder,
    origin: Template,
    cloned: Clone,
    recorder: Recorder,
    detached: list[list[str]],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only its guest notices; size and time of the file are as they were."""
    monkeypatch.setattr(resume, "TIMEOUT", 0.1)
    cloned.answer = b""
    before = origin.memory.stat().st_mtime_ns
    origin.memory.write_bytes(b"memorx")
    os.utime(origin.memory, ns=(before, before))
    laid.start()
    assert boots_cold(laid, folder, recorder)
    assert "memory has changed: the next create makes a new one" in said[0]
    assert not origin.folder.exists()


def test_a_state_that_goes_while_qemu_starts(
    laid: Qemu, folder: MachineFolder, origin: Template, cloned: Clone, recorder: Recorder, detached: list[list[str]]
) -> None:
    before = recorder.launched

    def launched(words: list[str]) -> None:
        before(words)
        origin.state.unlink(missing_ok=True)

    recorder.launched = launched
    laid.start()
    assert boots_cold(laid, folder, recorder)


def test_a_qemu_that_doesnt_open_the_channel(folder: MachineFolder) -> None:
    with pytest.raises(DriverFailed, match=r"doesn't answer on resume\.sock"):
        resume.connect(folder)


def test_a_cold_boot_that_fails_too_is_an_error(laid: Qemu, recorder: Recorder, said: list[str]) -> None:
    def launched(words: list[str]) -> None:
        raise DriverFailed("no memory")

    recorder.launched = launched
    with pytest.raises(MachineError, match="no memory"):
        laid.start()
    assert said == ["cloning failed (no memory): booting cold"]


def test_what_dockerd_refuses_in_a_template_is_not_tried_again(
    larger: Qemu, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(vm: Vm) -> None:
        raise EngineRefused("failed to start daemon: driver not supported: btrfs")

    monkeypatch.setattr(clone, "lay_disk", refuse)
    with pytest.raises(EngineRefused):
        larger.create()
    assert not (folder / DISK).exists()

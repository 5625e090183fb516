"""Making a template: with a real qemu-img, and stand-ins for QEMU and its guest."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_qemu import QEMU, Recorder, guest
from fake_qmp import agent, channel, monitor
from fake_template import another
from machine.drivers.qemu import Qemu, clone, template, template_maker
from machine.drivers.qemu.process import Process
from machine.drivers.qemu.vm import Vm

from machine import lifecycle, spec
from machine import store as stores
from machine.docker import contexts
from machine.errors import DriverFailed, EngineRefused
from machine.guest import credentials, seed
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.spec import Engine, Machine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


# The recipe.


def test_a_recipe_names_what_the_template_has(larger: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "qemu_mark", lambda path: f"mark of {path}")
    made = template_maker.recipe_for(larger.vm)
    assert (made.base_mib, made.disk_mib) == (template_maker.BASE_MIB, template_maker.DISK_MIB)
    assert (made.qemu, made.accelerator, made.cpu, made.cpus) == (f"{QEMU} mark of {QEMU}", "tcg", "max", 1)
    small = template_maker.recipe_for(another(larger, [], memory_mib=256, disk_mib=1024).vm)
    assert (small.base_mib, small.disk_mib) == (256, 1024)


def test_where_memory_cant_be_plugged_a_template_has_all_of_it(larger: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    host = replace(larger.vm.host(), system="darwin")
    monkeypatch.setattr(Vm, "host", lambda self: host)
    assert template_maker.recipe_for(another(larger, [], memory_mib=3072).vm).base_mib == 3072


@pytest.mark.parametrize(
    "change",
    [
        {"image": "another"},
        {"cpus": 2},
        {"memory_mib": 256},
        {"disk_mib": 1024},
        {"options": {"accelerator": "kvm"}},
        {"tls": False},
        {"engine": Engine(labels=("stage=test",))},
        {"engine": Engine(options=("log-driver=local",))},
        {"engine": Engine(environment=("LANG=C",))},
    ],
)
def test_another_machine_needs_another_template(larger: Qemu, change: dict[str, Any]) -> None:
    assert template_maker.recipe_for(another(larger, [], **change).vm).key != template_maker.recipe_for(larger.vm).key


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"mac": "52:54:00:00:00:02"}, {"memory_mib": 2048}, {"disk_mib": 40 * 1024}]
)
def test_what_a_clone_gets_later_needs_no_other_template(larger: Qemu, change: dict[str, Any]) -> None:
    assert template_maker.recipe_for(another(larger, [], **change).vm).key == template_maker.recipe_for(larger.vm).key


def test_proxies_and_authorities_of_the_host_need_another_template(
    larger: Qemu, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [template_maker.recipe_for(larger.vm).key]
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    keys.append(template_maker.recipe_for(larger.vm).key)
    # The guest's dockerd has read whom it trusts before it is cloned.
    (store / "ca").mkdir()
    body = base64.b64encode(b"a certificate").decode()
    (store / "ca" / "company.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    keys.append(template_maker.recipe_for(larger.vm).key)
    assert len(set(keys)) == 3


def test_an_upgraded_qemu_or_another_processor_needs_another_template(
    larger: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = another(larger, [], options={"accelerator": "kvm"})
    keys = []
    for mark, processor in (("1", "A"), ("2", "A"), ("2", "B")):
        monkeypatch.setattr(template, "qemu_mark", lambda _, mark=mark: mark)
        monkeypatch.setattr(template_maker, "_processor", lambda processor=processor: processor)
        keys.append((template_maker.recipe_for(fast.vm).key, template_maker.recipe_for(larger.vm).key))
    assert len({key for key, _ in keys}) == 3
    # What is emulated is the same on any processor.
    assert keys[1][1] == keys[2][1]


def test_the_processor_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path, encoding: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(template_maker.platform, "processor", lambda: "arm")
    assert isinstance(template_maker._processor(), str)
    monkeypatch.setattr(Path, "read_text", absent)
    assert template_maker._processor() == "arm"


# The making.


@pytest.fixture
def maker(larger: Qemu, store: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> list[MachineFolder]:
    """The folders in which a template's QEMU was started. It boots at once, and its guest obeys."""
    folders: list[MachineFolder] = []

    def launched(words: list[str]) -> None:
        place = MachineFolder(Path(words[words.index("-pidfile") + 1]).parent)
        folders.append(place)
        place.console.write_text("docker is ready")
        (place / template.MEMORY).write_bytes(b"memory")

    recorder.launched = launched
    monkeypatch.setattr(Process, "find", lambda self: self)
    monkeypatch.setattr(template_maker, "_save", lambda folder, mib, _: (folder / template.STATE).write_text(f"{mib}"))
    return folders


def left_over(store: Path) -> list[str]:
    return [path.name for path in (store / "machines").iterdir() if path.name not in {"dev", ".lock"}]


def test_a_template_is_made_from_a_machine_without_identity(
    larger: Qemu,
    store: Path,
    folder: MachineFolder,
    maker: list[MachineFolder],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[dict[str, str]] = []
    anonymous = credentials.anonymous
    monkeypatch.setattr(
        credentials,
        "anonymous",
        lambda machine, path: (anonymous(machine, path), seeds.append(seed.read(path))),
    )
    larger.create()
    (kept,) = template.all_of(store)
    about = kept.about()
    assert about.recipe == vars(template_maker.recipe_for(larger.vm))
    assert (about.read_only, kept.memory.read_bytes(), kept.state.read_text()) == (True, b"memory", "512")
    assert (folder / clone.BASE_DISK).samefile(kept.disk)
    (place,) = maker
    assert place.path.name == f".scratch-{template_maker.recipe_for(larger.vm).key}"
    assert left_over(store) == []
    (words,) = recorder.launches
    assert f"memory-backend-file,id=ram,size=512M,mem-path={place / 'memory'},share=on" in words
    assert not [word for word in words if "hostfwd" in word]
    (told,) = seeds
    assert told["machineos/hostname"] == "template\n"
    assert larger.machine.uuid not in told["meta-data"]
    assert told["machineos/daemon.json"]
    assert "machineos/tls/server-key.pem" in told


def test_an_older_qemu_would_punch_holes_into_the_memory_of_a_template(
    larger: Qemu, store: Path, maker: list[MachineFolder], recorder: Recorder
) -> None:
    recorder.version = "QEMU emulator version 8.1.9 (v8.1.9)"
    larger.create()
    (kept,) = template.all_of(store)
    assert not kept.about().read_only
    assert "virtio-balloon-pci,id=balloon,free-page-reporting=off" in recorder.launches[0]


@pytest.mark.parametrize("error", [DriverFailed("it failed"), KeyboardInterrupt()])
def test_a_making_that_fails_leaves_nothing(
    larger: Qemu,
    folder: MachineFolder,
    store: Path,
    maker: list[MachineFolder],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fails(folder: MachineFolder, base_mib: int, timeout: float) -> None:
        assert folder.path.exists()
        raise error

    monkeypatch.setattr(template_maker, "_save", fails)
    with contextlib.suppress(KeyboardInterrupt):
        larger.create()
    assert len(maker) == 1
    assert left_over(store) == []
    assert list(template.all_of(store)) == []


def test_a_template_that_doesnt_boot(
    larger: Qemu, store: Path, maker: list[MachineFolder], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_maker, "BOOT", 0.05)
    monkeypatch.setattr(template_maker, "_is_up", lambda maker: False)
    larger.create()
    assert said[-1] == "no template (timed out after 0 s waiting for the template to boot): booting cold"
    assert left_over(store) == []


def test_other_processors_get_more_time(
    larger: Qemu, store: Path, maker: list[MachineFolder], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_maker, "BOOT", 0.5)
    monkeypatch.setattr(template_maker, "_is_up", lambda maker: False)
    other = Qemu(dataclasses.replace(larger.machine, architecture="aarch64"), larger.folder, larger.run)
    other.say = said.append
    assert (larger.vm.patience, other.vm.patience) == (1, 3)
    other.create()
    assert said[-1].startswith("no template (timed out after 2 s waiting")


def test_whether_a_template_is_up(larger: Qemu, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriverFailed, match="ended while it booted") as caught:
        template_maker._is_up(larger.vm)
    assert caught.value.details
    monkeypatch.setattr(Process, "find", lambda self: self)
    assert not template_maker._is_up(larger.vm)
    folder.console.write_bytes(b"\xff booting")
    assert not template_maker._is_up(larger.vm)
    folder.console.write_bytes(b"\xff machineos: docker is ready\r\n")
    assert template_maker._is_up(larger.vm)


def test_saving_a_template(folder: MachineFolder) -> None:
    sizes: list[int] = []

    def balloon(message: dict[str, Any]) -> dict[str, Any]:
        sizes.append(message["arguments"]["value"] >> 20)
        return {}

    answers = {
        "balloon": balloon,
        "query-balloon": lambda _: {"actual": sizes[-1] << 20},
        "query-migrate": {"status": "completed"},
    }
    with (
        agent(folder / "agent.sock", guest) as inside,
        monitor(folder / "qmp.sock", answers) as server,
        channel(folder / "resume.sock", lambda line: b""),
    ):
        template_maker._save(folder, 512, 60)
    (ran,) = [message["arguments"] for message in inside.asked if message["execute"] == "guest-exec"]
    assert ran["path"] == "/usr/lib/machineos/prepare-template"
    # 200 MiB of the guest's 512 are free.
    assert sizes == [512 - 200 + template_maker.SPARE_MIB, 512]
    assert server.commands.index("balloon") < server.commands.index("stop") < server.commands.index("migrate")
    shared = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
    assert {"execute": "migrate-set-capabilities", "arguments": shared} in server.asked
    assert (folder / template.STATE).exists()


def test_a_guest_that_cant_be_prepared_is_no_template(folder: MachineFolder) -> None:
    failing = pytest.raises(DriverFailed, match="prepare-template failed in the guest: no id")
    answer = {"exitcode": 3, "err-data": base64.b64encode(b"no id\n").decode()}
    with agent(folder / "agent.sock", lambda message: guest(message, **answer)), failing:
        template_maker._save(folder, 512, 60)
    assert not (folder / template.STATE).exists()


def test_the_version_of_a_qemu_that_tells_none(larger: Qemu, recorder: Recorder) -> None:
    recorder.version = "?"
    assert template_maker._version(larger.vm) == (0, 0)
    recorder.version = "QEMU emulator version 10.0.2"
    assert template_maker._version(larger.vm) == (10, 0)


def test_a_template_whose_dockerd_refuses_is_not_awaited(larger: Qemu, folder: MachineFolder, running: object) -> None:
    last = (
        "machineos: [ 20.00] dockerd ended, its last words:\nmachineos: [ 20.00]   dockerd: failed to start daemon: x\n"
    )
    folder.console.write_text(last * 2)
    with pytest.raises(EngineRefused, match="failed to start daemon: x"):
        template_maker._is_up(larger.vm)


def test_a_scratch_home_of_a_killed_process_is_swept_though_it_has_no_address(
    larger: Qemu, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(larger.folder.path)
    # Somebody's own machine "template" has a docker context.
    monkeypatch.setattr(contexts, "_host", lambda name: "tcp://127.77.0.9:2375")
    place = MachineFolder(store / "machines" / ".scratch-key")
    machine = replace(larger.machine, name="template", address=None)
    place.path.mkdir()
    place.creating.write_text(spec.dumps(machine))

    # The user never made a machine of that name, and needn't know.
    def undo(machine: Machine, folder: MachineFolder) -> None:
        lifecycle.undo(Instance(machine, folder))

    assert list(stores.sweep(undo)) == []
    assert not place.path.exists()
    place.path.mkdir()
    place.creating.write_text("{")
    with stores.scratch("key", machine, undo) as folder:
        assert stores.read(folder) == machine
    assert left_over(store) == []

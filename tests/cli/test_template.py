"""machine template, with templates of the driver `qemu` whose files are made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
from fake_fixtures import add_image
from machine.drivers.qemu import failures, template
from machine.drivers.qemu.template import Recipe, Template

from machine import registry
from machine.driver import Driver
from machine.errors import DriverFailed, MachineError
from tests.fixture_types import Invoke, Outcome


class Make(Protocol):
    """A template that is in use; changed fields make another."""

    def __call__(self, **fields: Any) -> Template: ...


@pytest.fixture
def make(store: Path, tmp_path: Path) -> Make:
    binary = tmp_path / "bin of ours" / "qemu"
    binary.parent.mkdir()
    binary.write_bytes(b"qemu")
    image = add_image(tmp_path, "machineos", b"one").digest

    def fill(folder: Path) -> bool:
        for name in ("memory", "state", "disk.qcow2"):
            (folder / name).write_bytes(os.urandom(1 << 20))
        return True

    def make(**fields: Any) -> Template:
        asked = {"image": image, "qemu": f"{binary} {template.qemu_mark(binary)}", "accelerator": "tcg", "cpu": "max"}
        sizes = {"cpus": 2, "base_mib": 512, "disk_mib": 20480, "engine": "e"}
        recipe = Recipe(**{**asked, **sizes, **fields})
        return template.obtain(store, recipe, fill, pytest.fail)

    return make


def stale(invoke: Invoke) -> list[str]:
    shown = invoke("template", "ls", "--json")
    assert shown.code == 0
    return [one["stale"] for one in json.loads(shown.out)]


def test_ls(invoke: Invoke, make: Make) -> None:
    made = make()
    (one,) = json.loads(invoke("template", "ls", "--json").out)
    image = made.about().recipe["image"]
    assert one == {
        "key": made.folder.name,
        "created": made.about().created,
        "size_mib": one["size_mib"],
        "what": f"{image[:12]}, 2 cpus, 512 MiB, tcg",
        "stale": "",
        "failed": "",
    }
    assert 3 <= one["size_mib"] <= 4
    assert invoke("template", "ls", "-q").out == f"{made.folder.name}\n"
    header, row = invoke("template", "ls").lines
    assert header.split() == ["TEMPLATE", "CREATED", "SIZE", "OF", "STALE"]
    assert row.split()[:2] == [made.folder.name, made.about().created]
    assert "MiB" in row


def test_a_store_without_templates(invoke: Invoke, store: Path) -> None:
    assert invoke("template", "ls", "--json").out == "[]\n"
    assert invoke("template", "ls", "-q") == Outcome(0, "", "")
    assert invoke("template", "prune") == Outcome(0, "", "")


def change_about(made: Template, **fields: object) -> None:
    about = json.loads((made.folder / "about.json").read_text())
    (made.folder / "about.json").write_text(json.dumps({**about, **fields}))


def test_why_one_is_stale(invoke: Invoke, store: Path, tmp_path: Path, make: Make) -> None:
    made = make()
    recipe = made.about().recipe
    assert stale(invoke) == [""]
    change_about(made, recipe={**recipe, "format": 0})
    assert stale(invoke) == ["made by another version of machine"]
    change_about(made, recipe={**recipe, "colour": "red"})
    assert stale(invoke) == ["made by another version of machine"]
    change_about(made, recipe=recipe)
    (tmp_path / "bin of ours" / "qemu").write_bytes(b"a newer qemu")
    assert stale(invoke) == ["QEMU has changed"]
    (tmp_path / "bin of ours" / "qemu").unlink()
    assert stale(invoke) == ["QEMU has changed"]
    (store / "images" / recipe["image"] / "image").unlink()
    assert stale(invoke) == ["its image was removed"]
    made.memory.write_bytes(b"")
    assert stale(invoke) == [f"the template {made.folder.name} is damaged: memory has changed"]


def test_rm(invoke: Invoke, make: Make) -> None:
    made, other = make(), make(cpus=4)
    shown = invoke("template", "rm", made.folder.name, "absent")
    assert (shown.code, shown.out) == (2, "")
    assert 'there is no template "absent"' in shown.err
    assert "Next: machine template ls" in shown.err
    assert made.folder.exists()
    shown = invoke("template", "rm", made.folder.name)
    assert (shown.code, shown.out) == (0, f"Removed the template {made.folder.name}\n")
    assert [made.folder.exists(), other.folder.exists()] == [False, True]


@pytest.mark.parametrize("name", ["..", "../machines", ""])
def test_rm_stays_among_the_templates(invoke: Invoke, store: Path, make: Make, name: str) -> None:
    make()
    assert invoke("template", "rm", name).code == 2
    assert (store / "templates").exists()


def test_prune_removes_what_is_used_no_more(invoke: Invoke, make: Make) -> None:
    made, damaged, old = make(), make(cpus=4), make(qemu="/absent/qemu 1 2")
    damaged.state.unlink()
    shown = invoke("template", "prune")
    assert shown.code == 0
    assert sorted(shown.lines) == sorted(
        [
            f"Removed the template {damaged.folder.name}: the template {damaged.folder.name} is damaged:"
            " state has changed",
            f"Removed the template {old.folder.name}: QEMU has changed",
        ]
    )
    assert [one.folder.exists() for one in (made, damaged, old)] == [True, False, False]
    assert invoke("template", "prune").out == ""
    assert invoke("template", "prune", "--all").out == f"Removed the template {made.folder.name}\n"
    assert not made.folder.exists()


RECIPE = {"image": "d" * 64, "cpus": 2, "base_mib": 512, "accelerator": "tcg"}


def test_one_that_couldnt_be_made(invoke: Invoke, store: Path, make: Make) -> None:
    made = make()
    failures.remember(made.folder.parent, "zzz", RECIPE, "timed out")
    _, shown = json.loads(invoke("template", "ls", "--json").out)
    assert {name: shown[name] for name in ("key", "size_mib", "what", "stale", "failed")} == {
        "key": "zzz",
        "size_mib": 0,
        "what": "dddddddddddd, 2 cpus, 512 MiB, tcg",
        "stale": "",
        "failed": "timed out",
    }
    assert invoke("template", "ls").lines[-1].endswith("failed: timed out")
    assert invoke("template", "rm", "zzz").out == "Removed the template zzz\n"
    assert invoke("template", "ls", "-q").out == f"{made.folder.name}\n"


def test_one_that_couldnt_be_loaded(invoke: Invoke, make: Make) -> None:
    made = make()
    for times in range(failures.LOADS):
        assert invoke("template", "ls").lines[-1].endswith("failed: refused") is False, times
        failures.count_load(made.folder.parent, made.folder.name, RECIPE, "refused")
    (shown,) = json.loads(invoke("template", "ls", "--json").out)
    assert (shown["failed"], shown["stale"]) == ("refused", "")
    assert invoke("template", "prune").out == f"Removed the template {made.folder.name}: failed: refused\n"
    assert invoke("template", "ls", "--json").out == "[]\n"
    assert not made.folder.exists()


@pytest.mark.parametrize("verb", [("template", "prune"), ("ls", "-q")])
def test_what_a_killed_create_left_goes_with_the_next_command(
    invoke: Invoke, store: Path, make: Make, verb: tuple[str, ...]
) -> None:
    made = make()
    (store / "templates" / ".0123456789abcdef.new").mkdir()
    assert invoke(*verb) == Outcome(0, "", "")
    left = [path.name for path in (store / "templates").iterdir() if not path.name.endswith(".lock")]
    assert left == [made.folder.name]


def test_another_process_that_makes_a_template_goes_on(invoke: Invoke, store: Path) -> None:
    (store / "templates" / ".0123456789abcdef.new").mkdir(parents=True)
    held = "import sys, filelock; a = filelock.FileLock(sys.argv[1]); a.acquire(); print(1, flush=True); input()"
    lock = store / "templates" / ".0123456789abcdef.lock"
    words = [sys.executable, "-c", held, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        assert maker.stdout
        assert maker.stdout.readline()
        invoke("template", "prune")
        assert (store / "templates" / ".0123456789abcdef.new").exists()
        maker.communicate(b"\n", timeout=120)
    invoke("template", "prune")
    assert not (store / "templates" / ".0123456789abcdef.new").exists()


def test_another_driver_that_cant_be_loaded(invoke: Invoke, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make()
    load = registry.load

    def loaded(name: str) -> type[Driver]:
        if name == "fake":
            raise MachineError("it is broken")
        return load(name)

    monkeypatch.setattr(registry, "load", loaded)
    assert invoke("template", "ls", "-q").out == f"{made.folder.name}\n"


def test_a_driver_without_templates_removes_none(store: Path) -> None:
    fake = registry.load("fake")
    assert fake.templates(store) == []
    with pytest.raises(DriverFailed, match="fake machines are made without templates"):
        fake.remove_template(store, "key")

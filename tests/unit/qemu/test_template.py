import contextlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest
from machine.drivers.qemu import failures, template
from machine.drivers.qemu.template import Recipe, Template

from machine.errors import DriverFailed, WaitTimeout

RECIPE = Recipe("digest", "/usr/bin/qemu 1 2", "tcg", "max", 2, 512, 20480, "engine")


@pytest.fixture
def said() -> list[str]:
    return []


class Obtain(Protocol):
    """The template of the recipe; its making is counted in `made`."""

    def __call__(self, recipe: Recipe = ..., make: Callable[[Path], bool] = ...) -> Template: ...


@pytest.fixture
def obtain(store: Path, said: list[str]) -> Obtain:
    def obtain(recipe: Recipe = RECIPE, make: Callable[[Path], bool] = make) -> Template:
        return template.obtain(store, recipe, make, said.append)

    return obtain


def make(folder: Path) -> bool:
    for name in ("memory", "state", "disk.qcow2"):
        (folder / name).write_bytes(name.encode())
    return True


def never(folder: Path) -> bool:
    raise AssertionError("it was made again")


def entries(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "templates").iterdir() if not path.name.endswith(".lock"))


def test_a_template_is_made_once(store: Path, obtain: Obtain, said: list[str]) -> None:
    made = obtain()
    assert obtain(make=never).folder == made.folder == store / "templates" / RECIPE.key
    about = made.about()
    assert (about.read_only, Recipe(**about.recipe)) == (True, RECIPE)
    assert [path.read_text() for path in (made.memory, made.state, made.disk)] == ["memory", "state", "disk.qcow2"]
    assert [found.folder for found in template.all_of(store)] == [made.folder]
    assert said == []


def test_each_ingredient_makes_another_template(obtain: Obtain) -> None:
    others = [replace(RECIPE, **{name: 7}) for name in vars(RECIPE)]
    assert len({RECIPE.key, *(other.key for other in others)}) == len(others) + 1


def test_one_makes_it_and_the_others_wait(obtain: Obtain) -> None:
    made = []

    def slowly(folder: Path) -> bool:
        made.append(folder)
        return make(folder)

    threads = [threading.Thread(target=obtain, kwargs={"make": slowly}) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(made) == 1


def test_a_making_that_fails_leaves_nothing(store: Path, obtain: Obtain) -> None:
    def fails(folder: Path) -> bool:
        make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(make=fails)
    assert entries(store) == []
    (store / "templates" / f".{RECIPE.key}.new").mkdir()
    obtain()
    assert entries(store) == [RECIPE.key]


def test_what_a_killed_making_left_is_swept(store: Path, obtain: Obtain) -> None:
    made = obtain()
    left = store / "templates" / ".0123456789abcdef.new"
    left.mkdir()
    (left / "memory").write_bytes(b"half")
    template.sweep(store)
    assert entries(store) == [made.folder.name]


def test_a_template_that_is_being_made_is_not_swept(store: Path, obtain: Obtain) -> None:
    def sweeping(folder: Path) -> bool:
        make(folder)
        other = threading.Thread(target=template.sweep, args=(store,))
        other.start()
        other.join(timeout=120)
        return True

    assert obtain(make=sweeping).about()


def fails(folder: Path) -> bool:
    make(folder)
    raise DriverFailed("it doesn't boot")


@pytest.mark.parametrize("error", [DriverFailed("no"), WaitTimeout("the template to boot", 300), OSError("no room")])
def test_a_failure_is_remembered(store: Path, obtain: Obtain, error: Exception) -> None:
    def fails(folder: Path) -> bool:
        raise error

    with pytest.raises(type(error)):
        obtain(make=fails)
    with pytest.raises(DriverFailed) as caught:
        obtain(make=never)
    assert str(error) in caught.value.message
    assert f"machine template rm {RECIPE.key}" in caught.value.message
    (shown,) = template.list_kept(store)
    assert (shown.key, shown.size_mib, shown.stale, shown.failed) == (RECIPE.key, 0, "", str(error))


def a_day_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LASTS", timedelta())


def machine_is_upgraded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.__version__", "99")


def it_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template.remove(folder.parent, RECIPE.key)


def the_record_is_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f".{RECIPE.key}.failed").write_text('{"at": "yesterday"}')


@pytest.mark.parametrize("change", [a_day_passes, machine_is_upgraded, it_is_removed, the_record_is_damaged])
def test_a_failure_is_forgotten(
    store: Path,
    obtain: Obtain,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    with pytest.raises(DriverFailed):
        obtain(make=fails)
    change(store / "templates", monkeypatch)
    assert template.list_kept(store) == []
    assert obtain().about()
    monkeypatch.undo()
    assert obtain(make=never).about()


def test_another_recipe_is_another_template(obtain: Obtain) -> None:
    with pytest.raises(DriverFailed):
        obtain(make=fails)
    assert obtain(replace(RECIPE, qemu="/usr/bin/qemu 3 4")).about()


def test_one_tries_and_the_others_hear_of_it(obtain: Obtain) -> None:
    tried = []

    def slowly(folder: Path) -> bool:
        tried.append(folder)
        return fails(folder)

    def ask() -> None:
        with contextlib.suppress(DriverFailed):
            obtain(make=slowly)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(tried) == 1


def test_an_interrupted_making_is_no_failure(store: Path, obtain: Obtain) -> None:
    def interrupted(folder: Path) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(make=interrupted)
    assert template.list_kept(store) == []
    assert obtain().about()


def test_old_failures_dont_pile_up(store: Path, obtain: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriverFailed):
        obtain(make=fails)
    monkeypatch.setattr("machine.__version__", "99")
    other = replace(RECIPE, cpus=7)
    with pytest.raises(DriverFailed):
        obtain(other, make=fails)
    assert entries(store) == [f".{other.key}.failed"]


def refuse(made: Template, times: int) -> None:
    for _ in range(times):
        failures.count_load(made.folder.parent, made.folder.name, {}, "QEMU couldn't load it")


def test_a_template_that_is_refused_again_and_again(obtain: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    made = obtain()
    refuse(made, failures.LOADS - 1)
    assert obtain(make=never).about()
    failures.forget(made.folder.parent, made.folder.name)  # it was loaded
    refuse(made, failures.LOADS - 1)
    assert obtain(make=never).about()
    refuse(made, 1)
    with pytest.raises(DriverFailed, match="QEMU couldn't load it"):
        obtain(make=never)
    assert made.about(), "its files are as they were, and stay"
    a_day_passes(made.folder, monkeypatch)
    created = made.about().created
    monkeypatch.setattr(template, "_digest", lambda path, **_: "new")
    assert obtain().about().digests["state"] == "new"
    assert created


def test_what_cant_be_read_isnt_damaged(obtain: Obtain, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to root, or the disk fails at this moment."""
    made = obtain()

    def denied(*_: object, **__: object) -> str:
        raise PermissionError("denied")

    for name in ("read_text", "read_bytes", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, denied)
            with pytest.raises(DriverFailed, match="can't be read"):
                made.about()
            with pytest.raises(DriverFailed, match="can't be read"):
                obtain(make=never)
    assert made.about()


def test_a_byte_that_has_changed_under_the_same_size_and_time(obtain: Obtain) -> None:
    made = obtain()
    made.verify()
    before = made.memory.stat().st_mtime_ns
    made.memory.write_bytes(b"memorx")
    os.utime(made.memory, ns=(before, before))
    assert made.about()
    with pytest.raises(template.Damaged, match="memory has changed"):
        made.verify()


def test_a_template_of_an_earlier_version_is_used(obtain: Obtain) -> None:
    made = obtain()
    about = json.loads((made.folder / "about.json").read_text())
    del about["digests"]
    (made.folder / "about.json").write_text(json.dumps(about))
    made.verify()
    assert obtain(make=never).about().digests == {}


def truncate(path: Path) -> None:
    os.truncate(path, 1)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("about.json", truncate),
        ("about.json", lambda path: path.write_text("[]")),
        ("about.json", lambda path: path.write_text('{"more": 1}')),
        ("about.json", Path.unlink),
        ("memory", truncate),
        ("memory", touch),
        ("memory", Path.unlink),
        ("state", truncate),
        ("disk.qcow2", touch),
    ],
)
def test_a_damaged_template_is_made_anew(
    obtain: Obtain, said: list[str], name: str, damage: Callable[[Path], object]
) -> None:
    made = obtain()
    damage(made.folder / name)
    with pytest.raises(DriverFailed, match="is damaged"):
        made.about()
    assert obtain().about()
    assert said == ["its template can't be used: making a new one"]


def test_a_state_that_was_changed_under_the_same_time_is_damaged(obtain: Obtain) -> None:
    made = obtain()
    before = made.state.stat().st_mtime_ns
    made.state.write_text("etats")
    os.utime(made.state, ns=(before, before))
    with pytest.raises(DriverFailed, match="state has changed"):
        made.about()


def test_a_link_to_the_disk_is_no_damage_and_outlives_it(obtain: Obtain, tmp_path: Path) -> None:
    made = obtain()
    os.link(made.disk, tmp_path / "base")
    assert made.about()
    made.remove()
    made.remove()
    assert (tmp_path / "base").read_text() == "disk.qcow2"
    assert json.dumps([str(found.folder) for found in template.all_of(made.folder.parent.parent)]) == "[]"


def test_a_store_without_templates(store: Path) -> None:
    assert list(template.all_of(store)) == []

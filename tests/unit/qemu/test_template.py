import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from machine.drivers.qemu import template
from machine.drivers.qemu.template import Recipe, Template

from machine.errors import DriverFailed

RECIPE = Recipe("digest", "/usr/bin/qemu 1 2", "tcg", "max", 2, 512, 20480, "engine")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def obtain(store: Path, said: list[str]) -> Callable[..., Template]:
    """The template of the recipe; its making is counted in `made`."""

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


def test_a_template_is_made_once(store: Path, obtain: Callable[..., Template], said: list[str]) -> None:
    made = obtain()
    assert obtain(make=never).folder == made.folder == store / "templates" / RECIPE.key
    about = made.about()
    assert (about.read_only, Recipe(**about.recipe)) == (True, RECIPE)
    assert [path.read_text() for path in (made.memory, made.state, made.disk)] == ["memory", "state", "disk.qcow2"]
    assert [found.folder for found in template.all_of(store)] == [made.folder]
    assert said == []


def test_each_ingredient_makes_another_template(obtain: Callable[..., Template]) -> None:
    others = [replace(RECIPE, **{name: 7}) for name in vars(RECIPE)]  # type: ignore[arg-type]
    assert len({RECIPE.key, *(other.key for other in others)}) == len(others) + 1


def test_one_makes_it_and_the_others_wait(obtain: Callable[..., Template]) -> None:
    made = []

    def slowly(folder: Path) -> bool:
        made.append(folder)
        return make(folder)

    threads = [threading.Thread(target=obtain, kwargs={"make": slowly}) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(made) == 1


def test_a_making_that_fails_leaves_nothing(store: Path, obtain: Callable[..., Template]) -> None:
    def fails(folder: Path) -> bool:
        make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(make=fails)
    assert entries(store) == []
    (store / "templates" / f".{RECIPE.key}.new").mkdir()
    obtain()
    assert entries(store) == [RECIPE.key]


def test_what_a_killed_making_left_is_swept(store: Path, obtain: Callable[..., Template]) -> None:
    made = obtain()
    left = store / "templates" / ".0123456789abcdef.new"
    left.mkdir()
    (left / "memory").write_bytes(b"half")
    template.sweep(store)
    assert entries(store) == [made.folder.name]


def test_a_template_that_is_being_made_is_not_swept(store: Path, obtain: Callable[..., Template]) -> None:
    def sweeping(folder: Path) -> bool:
        make(folder)
        other = threading.Thread(target=template.sweep, args=(store,))
        other.start()
        other.join(timeout=20)
        return True

    assert obtain(make=sweeping).about()


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
    obtain: Callable[..., Template], said: list[str], name: str, damage: Callable[[Path], object]
) -> None:
    made = obtain()
    damage(made.folder / name)
    with pytest.raises(DriverFailed, match="is damaged"):
        made.about()
    assert obtain().about()
    assert said == ["its template is damaged: making it anew"]


def test_a_state_that_was_changed_under_the_same_time_is_damaged(obtain: Callable[..., Template]) -> None:
    made = obtain()
    before = made.state.stat().st_mtime_ns
    made.state.write_text("etats")
    os.utime(made.state, ns=(before, before))
    with pytest.raises(DriverFailed, match="state has changed"):
        made.about()


def test_a_link_to_the_disk_is_no_damage_and_outlives_it(obtain: Callable[..., Template], tmp_path: Path) -> None:
    made = obtain()
    os.link(made.disk, tmp_path / "base")
    assert made.about()
    made.remove()
    made.remove()
    assert (tmp_path / "base").read_text() == "disk.qcow2"
    assert json.dumps([str(found.folder) for found in template.all_of(made.folder.parent.parent)]) == "[]"


def test_a_store_without_templates(store: Path) -> None:
    assert list(template.all_of(store)) == []

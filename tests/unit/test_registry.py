from __future__ import annotations

import importlib.metadata
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from machine import registry, resources
from machine.errors import MachineError, Usage


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Clear the caches of a process before and after each test."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for cached in (registry.load, registry._installed_in, registry._elsewhere_in):
        cached.cache_clear()


def distribution(folder: Path, name: str, points: str) -> None:
    (folder / f"{name}-1.dist-info").mkdir()
    (folder / f"{name}-1.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (folder / f"{name}-1.dist-info/entry_points.txt").write_text(points)


def test_our_own_are_found_as_by_importlib_metadata(store: Path) -> None:
    installed = {point.name: point.value for point in entry_points(group=registry.GROUP)}
    assert registry._installed() == installed
    assert {"qemu", "fake"} <= installed.keys()
    assert registry.load("qemu").name == "qemu"
    assert registry.load("fake").name == "fake"
    assert registry.names() == sorted(installed)


def test_drivers_that_create_takes(store: Path) -> None:
    assert "virtualbox-adopted" in registry.names()
    assert {"fake", "generic", "none", "qemu", "virtualbox"} <= set(registry.creatable()) < set(registry.names())
    assert "virtualbox-adopted" not in registry.creatable()
    with pytest.raises(Usage) as caught:
        registry.load("absent")
    assert caught.value.details == f"the drivers are {', '.join(registry.creatable())}"
    assert caught.value.hint == "machine create --help"


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("qemu", lambda patch: patch.setenv("PATH", "/nowhere")),
        ("virtualbox", lambda patch: patch.setenv("PATH", "/nowhere")),
        ("libvirt", lambda patch: patch.setitem(sys.modules, "libvirt", None)),
    ],
)
def test_what_a_driver_needs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lacking: Callable[[Any], None]
) -> None:
    for tool in ("VBoxManage", f"qemu-system-{resources.architecture()}"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "libvirt.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "libvirt", raising=False)
    driver = registry.load(name)
    assert driver.is_available()
    lacking(monkeypatch)
    assert not driver.is_available()


def test_a_drivers_file_with_all_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(
        tmp_path,
        "Some.Driver",
        "[console_scripts]\nqemu2 = no:no\n\n# machine.drivers\n[machine.drivers]\n# a = b:c\n; d = e:f\n"
        "one=machine.driver:Driver [extra]\n two = machine.driver:Driver\nthree = machine.driver:State\n"
        "four = no_such_module:X\nfive = machine.driver:Nothing\n"
        "six = raises_when_imported:X\n",
    )
    (tmp_path / "raises_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"one", "two"} <= set(registry.names())
    assert "qemu2" not in registry.names()
    assert registry.load("one") is registry.load("two")
    for name, message in {
        "three": "isn't a subclass of Driver",
        "four": "can't be loaded",
        "five": "isn't a subclass of Driver",
        "six": "can't be loaded",
    }.items():
        with pytest.raises(MachineError, match=message):
            registry.load(name)


def test_the_first_distribution_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("b", "a"):
        (tmp_path / folder).mkdir()
        distribution(
            tmp_path / folder, "same_name", f"[machine.drivers]\nshadow = machine_{folder}:X\n{folder} = x:Y\n"
        )
        monkeypatch.syspath_prepend(tmp_path / folder)
    found = registry._installed()
    assert found["shadow"] == "machine_a:X"
    assert "b" not in found


def test_one_of_another_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bundled(importlib.metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            known = {"METADATA": "Metadata-Version: 2.1\nName: bundled\nVersion: 1\n"}
            known["entry_points.txt"] = "[machine.drivers]\nbundled = machine.driver:Driver\n"
            return known.get(filename)

        def locate_file(self, path: object) -> Path:
            raise NotImplementedError

    class Finder(importlib.metadata.DistributionFinder):
        def find_spec(self, *_: object) -> None:
            return None

        def find_distributions(self, context: object = None) -> list[importlib.metadata.Distribution]:
            return [Bundled()]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert registry.load("bundled").__name__ == "Driver"


def test_where_all_lie_in_folders_nobody_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [path for path in sys.path if not Path(path).is_file()]
    finders = [finder for finder in sys.meta_path if not hasattr(finder, "find_distributions") or finder is PathFinder]
    monkeypatch.setattr(sys, "path", folders)
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.setattr(registry, "_elsewhere_in", lambda _: pytest.fail("importlib.metadata was asked"))
    assert "qemu" in registry.names()


def test_one_inside_a_zip_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "drivers.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1\n")
        file.writestr("zipped-1.dist-info/entry_points.txt", "[machine.drivers]\nzipped = machine.driver:Driver\n")
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    assert registry.load("zipped").__name__ == "Driver"


def test_a_process_reads_what_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_distributions", _fail)
    monkeypatch.setattr("importlib.metadata.entry_points", _fail)
    assert {registry.load(name).name for name in registry.names() if name in {"qemu", "none"}} == {"qemu", "none"}
    with pytest.raises(Usage, match="there is no driver"):
        registry.load("absent")


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("it is read again")


def test_unknown() -> None:
    with pytest.raises(Usage, match='there is no driver "absent"'):
        registry.load("absent")

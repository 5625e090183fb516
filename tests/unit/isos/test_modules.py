import lzma
from pathlib import Path

import pytest
from machine.isos.machineos import modules


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def module(path: str, depends: str = "", softdep: str = "") -> None:
        file = tmp_path / "kernel" / f"{path}.ko.xz"
        file.parent.mkdir(parents=True, exist_ok=True)
        info = f"\0license=GPL\0depends={depends}\0softdep={softdep}\0name=x\0"
        file.write_bytes(lzma.compress(info.encode()))

    module("net/a-one", depends="b_two,c")
    module("net/b-two", depends="d")
    module("lib/c")
    module("lib/d", softdep="pre: e")
    module("lib/e")
    module("lib/unused")
    return tmp_path


def test_dependencies_come_along(tree: Path) -> None:
    names = [modules.name_of(tree / path) for path in modules.select(tree, ["a-one"])]
    assert sorted(names) == ["a_one", "b_two", "c", "d", "e"]


def test_globs_match_paths_below_kernel(tree: Path) -> None:
    assert list(modules.select(tree, ["lib/?"])) == [f"kernel/lib/{name}.ko.xz" for name in "cde"]


def test_order_of_the_wish_does_not_matter(tree: Path) -> None:
    assert list(modules.select(tree, ["c", "a_one"])) == list(modules.select(tree, ["a-one", "c"]))


def test_modules_built_into_the_kernel_are_passed_over(tree: Path) -> None:
    assert modules.select(tree, ["virtio_pci"]) == {}

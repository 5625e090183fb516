"""Real file systems in files, which need no root."""

from pathlib import Path

from machine.drivers.lxc import disk

from machine.run import run


def test_a_file_system_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    disk.make(path, 64, run)
    assert disk._size(path) == 64 << 20
    disk.enlarge(path, 96)
    disk.fill(path, run)
    assert disk._size(path) == 96 << 20
    assert run(["e2fsck", "-n", "-f", path]).code == 0


def test_one_that_fills_its_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    disk.make(path, 64, run)

    def no_program(*_: object, **__: object) -> None:
        raise AssertionError

    disk.fill(path, no_program)


def test_a_copy_is_sparse_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    disk.make(path, 64, run)
    disk.copy(path, tmp_path / "copy.img", run)
    assert (tmp_path / "copy.img").read_bytes() == path.read_bytes()
    assert (tmp_path / "copy.img").stat().st_blocks < 64 << 11
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.img", "disk.img"]

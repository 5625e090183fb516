"""Moving a container: what is run, in which order. That it moves what it should is for tests/vm."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_lxc import Recorder
from machine.drivers.lxc import Lxc, binds, layout, mounts, portable

from machine.driver import Portable
from machine.errors import DriverFailed, ImageCorrupt, ToolFailed
from machine.run import Completed


class Programs:
    """Stands for run(): tar writes a file, or fails."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.refused = False

    def __call__(self, argv: Sequence[str | Path], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.ran.append(words)
        if "--create" in words:
            Path(words[words.index("--file") + 1]).write_text("a tar", encoding="utf-8")
        if "--extract" in words and self.refused:
            raise ToolFailed(words, 2, "tar: ./memory: Cannot mknod: Operation not permitted")
        return Completed(words, 0, "", "")

    def programs(self) -> list[str]:
        return [words[0] for words in self.ran]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, lxc: Lxc) -> Programs:
    programs = Programs()
    monkeypatch.setattr(portable, "run", programs)
    monkeypatch.setattr(binds, "mount", lambda *_, **__: programs(["bind"]))

    class Namespace:
        def __init__(self, ids: mounts.Ids) -> None:
            self.ids = ids

        def __enter__(self) -> int:
            assert self.ids.users == ((0, 0x7FFF0000, 65536),)
            return 7

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(mounts, "user_namespace", Namespace)
    return programs


def test_the_files_of_the_disk_are_exported(lxc: Lxc, programs: Programs) -> None:
    said: list[str] = []
    lxc.say = said.append
    (lxc.folder / ".export-killed").mkdir()
    with lxc.export() as export:
        assert set(export.files) == lxc.parts == {portable.DATA}
        assert export.files[portable.DATA].read_text() == "a tar"
        assert export.left == ()
        assert not (lxc.folder / ".export-killed").exists()
    assert programs.programs() == ["e2fsck", "mount", "tar", "umount"]
    assert "loop,ro,nodev,nosuid" in programs.ran[1]
    assert not list(lxc.folder.path.glob(".export-*"))
    assert said


def test_the_core_sees_that_it_moves(lxc: Lxc) -> None:
    assert isinstance(lxc, Portable)


def test_snapshots_stay_behind_and_it_is_said(lxc: Lxc, programs: Programs) -> None:
    lxc.create()
    lxc.snapshot("then")
    with lxc.export() as export:
        assert export.left == ("the snapshots then aren't moved: the file holds the machine as it is now",)


def test_files_are_unpacked_with_a_container_s_rights(lxc: Lxc, programs: Programs) -> None:
    (lxc.folder / portable.DATA).write_text("a tar")
    assert lxc.accept() == lxc.machine
    assert (lxc.folder / "disk.img").exists()
    assert not (lxc.folder / portable.DATA).exists()
    [extracted] = [words for words in programs.ran if "--extract" in words]
    assert extracted[5].startswith("nsenter")
    assert extracted[6].endswith("/fd/7")
    assert extracted[4] == str(lxc.folder / portable.DATA)
    [mounted] = [words for words in programs.ran if "ext4" in words]
    assert "loop,nodev,nosuid" in mounted
    assert not list(layout.CONTAINERS.glob("*-*"))


def test_what_a_container_may_not_make_is_refused(lxc: Lxc, programs: Programs) -> None:
    (lxc.folder / portable.DATA).write_text("a tar")
    programs.refused = True
    with pytest.raises(DriverFailed, match="can't be unpacked") as caught:
        lxc.accept()
    assert "Cannot mknod" in caught.value.details
    assert not list(layout.CONTAINERS.glob("*-*"))


def test_a_file_without_data_is_no_machine(lxc: Lxc) -> None:
    with pytest.raises(ImageCorrupt, match=portable.DATA):
        lxc.accept()


def test_root_s_rights_are_asked_for(lxc: Lxc) -> None:
    assert lxc.reaches() == []
    privileged = Lxc(replace(lxc.machine, options={"privileged": True}), lxc.folder, Recorder())
    [reach] = privileged.reaches()
    assert "--lxc-privileged" in reach.what
    assert reach.without(privileged.machine).options == {}

"""What a disk's header says, by files that qemu-img made, and by files that somebody crafted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from disk_files import qcow2, vdi

from machine import run
from machine.errors import ImageCorrupt
from machine.images import disks

Put = Callable[[bytes], Path]
qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img isn't installed")


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def put(content: bytes) -> Path:
        (tmp_path / "disk").write_bytes(content)
        return tmp_path / "disk"

    return put


def make(path: Path, *words: str, format: str = "qcow2") -> Path:
    run.run(["qemu-img", "create", "-q", "-f", format, *words, path, "64M"])
    return path


@qemu_img
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_whole_disk_of_qemu_img(tmp_path: Path, compat: str) -> None:
    assert disks.check_whole(make(tmp_path / "d", "-o", f"compat={compat}")) == disks.Disk("qcow2", 64 << 20)


@qemu_img
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_an_overlay_of_qemu_img(tmp_path: Path, compat: str) -> None:
    base = make(tmp_path / "base.qcow2")
    disk = make(tmp_path / "d", "-b", "base.qcow2", "-F", "qcow2", "-o", f"compat={compat}")
    assert disks.look(disk) == disks.Disk("qcow2", 64 << 20, "base.qcow2", "qcow2")
    with pytest.raises(ImageCorrupt, match=r"it needs the file base\.qcow2"):
        disks.check_whole(disk)
    assert base.exists()


@qemu_img
def test_an_external_data_file(tmp_path: Path) -> None:
    disk = make(tmp_path / "d", "-o", f"data_file={tmp_path}/secret")
    with pytest.raises(ImageCorrupt, match=f"it needs the file {tmp_path}/secret"):
        disks.check_whole(disk)


@qemu_img
def test_a_disk_with_a_password(tmp_path: Path) -> None:
    """qemu-img measures for seconds how strong a password it can make: the header says no more than this."""
    disk = make(tmp_path / "d", format="qcow2")
    with disk.open("r+b") as file:
        file.seek(32)
        file.write((2).to_bytes(4, "big"))  # crypt_method: LUKS
    with pytest.raises(ImageCorrupt, match="it needs a password"):
        disks.check_whole(disk)


@qemu_img
def test_a_disk_of_virtualbox(tmp_path: Path) -> None:
    assert disks.check_whole(make(tmp_path / "d", format="vdi")) == disks.Disk("vdi", 64 << 20)


@qemu_img
@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_disk_of_vmware_names_files(tmp_path: Path, subformat: str) -> None:
    with pytest.raises(ImageCorrupt, match="is a VMDK disk"):
        disks.look(make(tmp_path / "d.vmdk", "-o", f"subformat={subformat}", format="vmdk"))


@qemu_img
@pytest.mark.parametrize("format", ["qed", "vhdx", "parallels"])
def test_other_formats(tmp_path: Path, format: str) -> None:
    with pytest.raises(ImageCorrupt, match=r"disk, which machine can't boot$"):
        disks.look(make(tmp_path / "d", format=format))


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        (qcow2(backing="/etc/shadow", backing_format="raw"), "the file /etc/shadow"),
        (qcow2(backing='json:{"driver":"nbd"}'), "the file json:"),
        (qcow2(backing="nbd://evil:1\x1b[2J"), r"the file 'nbd://evil:1\\x1b\[2J'"),
        (qcow2(data_file="/etc/shadow"), "the file /etc/shadow"),
        (qcow2(incompatible=4), "the file of its data"),
        (qcow2(encryption=2), "a password"),
        (vdi(kind=4, parent=b"p" * 16), "the disk that it is an overlay of"),
        (vdi(kind=1, parent=b"p" * 16), "the disk that it is an overlay of"),
        (vdi(kind=4), "the disk that it is an overlay of"),
    ],
)
def test_what_is_only_a_part(put: Put, content: bytes, needs: str) -> None:
    with pytest.raises(ImageCorrupt, match=f"it needs {needs}"):
        disks.check_whole(put(content))


@pytest.mark.parametrize(
    "content",
    [
        b"QFI\xfb",
        qcow2()[:90],
        b"QFI\xfb\0\0\0\x09" + qcow2()[8:],
        qcow2()[:100] + b"\xff\xff\xff\xff" + qcow2()[104:],
        qcow2()[:104] + b"\xe2\x79\x2a\xca\xff\xff\xff\xff" + qcow2()[112:],
        qcow2(backing="x" * 2000),
        qcow2()[:8] + b"\xff" * 8 + b"\0\0\0\x05" + qcow2()[20:],
        vdi()[:0x100],
    ],
)
def test_what_is_damaged_is_said_to_be(put: Put, content: bytes) -> None:
    with pytest.raises(ImageCorrupt, match="is damaged"):
        disks.check_whole(put(content))


@pytest.mark.parametrize("at", [0, 63, 511, 100000])
def test_anything_else_is_raw(put: Put, at: int) -> None:
    assert disks.look(put(b"x" * at)) == disks.Disk("raw", at)


def test_snapshots_are_read_and_lose_their_memory(put: Put) -> None:
    disk = put(qcow2(snapshots=(("off", 0), ("on", 7 << 32), ("later", 5))))
    assert [(one.name, one.memory) for one in disks.snapshots(disk)] == [("off", False), ("on", True), ("later", True)]
    assert disks.forget_memory(disk) == ["on", "later"]
    assert [(one.name, one.memory) for one in disks.snapshots(disk)] == [
        ("off", False),
        ("on", False),
        ("later", False),
    ]


@qemu_img
def test_snapshots_of_qemu_img(tmp_path: Path) -> None:
    disk = make(tmp_path / "d")
    for name in ("one", "the-second"):
        run.run(["qemu-img", "snapshot", "-c", name, disk])
    before = disk.read_bytes()
    assert [(one.name, one.memory) for one in disks.snapshots(disk)] == [("one", False), ("the-second", False)]
    assert disks.forget_memory(disk) == []
    assert disk.read_bytes() == before


@pytest.mark.parametrize("count", [70000, 5])
def test_more_snapshots_than_there_are(put: Put, count: int) -> None:
    content = bytearray(qcow2())
    content[60:64] = count.to_bytes(4, "big")
    content[64:72] = (len(content) - 100).to_bytes(8, "big")
    with pytest.raises(ImageCorrupt, match="is damaged"):
        disks.snapshots(put(bytes(content)))


@qemu_img
def test_qemu_img_agrees_with_what_is_crafted_here(put: Put) -> None:
    """So that the tests above are about what QEMU would follow."""
    told = run.run(["qemu-img", "info", "--output=json", put(qcow2(backing="/none/at/all", backing_format="raw"))])
    found = json.loads(told.stdout)
    assert (found["format"], found["backing-filename"]) == ("qcow2", "/none/at/all")
    told = run.run(["qemu-img", "info", "--output=json", put(qcow2(snapshots=(("on", 7 << 32),)))])
    assert [(one["name"], one["vm-state-size"]) for one in json.loads(told.stdout)["snapshots"]] == [("on", 7 << 32)]

"""Export and import of machines in a real VirtualBox; none is started, but for the one of test_virtualbox.py.

Disks are written and read by qemu-io and qemu-img, which know VDI files that aren't overlays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine.drivers.virtualbox import VirtualBox
from virtualbox_rig import Rig, rig

from machine import paths, spec, store
from machine.create import draft
from machine.images import cache
from machine.images.cache import ImageInfo
from machine.run import Completed, run
from machine.spec import Address, Machine
from machine.ssh import keys
from tests.vm.full import DATA_MIB

__all__ = ["rig"]

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-io")), reason="qemu-img and qemu-io aren't installed here"
)
DISK_MIB = 1500


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of which DATA_MIB aren't zero, and of which no two MiB are the same."""
    file = tmp_path_factory.mktemp("data") / "raw"
    block = os.urandom(1 << 20)
    with file.open("wb") as out:
        for number in range(DATA_MIB):
            out.write(number.to_bytes(8, "big") + block[8:])
        out.truncate(DISK_MIB << 20)
    return file


@pytest.fixture(scope="module")
def snapshotted(rig: Rig, data: Path) -> Iterator[VirtualBox]:
    """A stopped machine, with a snapshot that was taken after its disk had been written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.STORE_VARIABLE, str(rig.share / "store"))
        patch.setenv(paths.IMAGES_VARIABLE, str(rig.share / "images"))
        iso = rig.guest / "tiny.iso"
        image = cache.add(iso, ImageInfo("tiny", cache.digest(iso), "x86_64", "iso", iso.stat().st_size, "2026-01-01"))
        asked = draft("dev", "virtualbox", image.digest, memory_mib=256, cpus=1, disk_mib=DISK_MIB)
        options = {"no_vtx_check": True, "no_share": True}
        machine = Machine(**{**vars(asked), "address": Address("127.77.255.4"), "options": options})
        folder = store.folder_of("dev")
        folder.path.mkdir(parents=True)
        for key in (folder.ssh_key, folder.host_key):
            keys.generate(key, "test")
        folder.config.write_text(spec.dumps(machine), encoding="utf-8")
        folder.lock.touch()
        driver = VirtualBox(machine, folder, run)
        driver.create()
        subprocess.run(
            ["qemu-io", "-f", "vdi", "-c", f"write -q -s {data} 0 {DATA_MIB}M", folder / "disk.vdi"],
            check=True,
            timeout=120,
        )
        driver.snapshot("then")
        yield driver
        driver.remove()
        assert rig.leftovers() == []


def machine(*words: str | Path, code: int = 0, timeout: float = 300) -> Completed:
    argv = [sys.executable, "-m", "machine", *map(str, words)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == code, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
    return Completed(argv, done.returncode, done.stdout, done.stderr)


def digest(disk: Path, folder: Path) -> str:
    """Of what the guest sees."""
    raw = folder / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "vdi", "-O", "raw", disk, raw], check=True, timeout=300)
    with raw.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    raw.unlink()
    return found


@contextlib.contextmanager
def unchanged(rig: Rig, snapshotted: VirtualBox) -> Iterator[None]:
    """Nothing is left in VirtualBox or in the machine's folder of what the block does."""
    before = rig.leftovers(), set(snapshotted.folder.path.iterdir())
    yield
    assert (rig.leftovers(), set(snapshotted.folder.path.iterdir())) == before


def test_what_lies_in_two_files_after_a_snapshot_is_moved_as_one(
    rig: Rig, snapshotted: VirtualBox, data: Path, tmp_path: Path
) -> None:
    assert not snapshotted.info().media["SATA-1-0"].endswith("disk.vdi")
    file = rig.share / "dev.machine"
    with unchanged(rig, snapshotted):
        told = machine("export", "--no-image", "dev", file)
        assert "the snapshots then aren't moved: the file holds the machine as it is now" in told.stderr
        # The same VirtualBox knows the first one's disk: this one's has another UUID.
        machine("import", "-q", "--name", "two", file)
        made, folder = store.load("two"), store.folder_of("two")
        info = VirtualBox(made, folder, run).info()
        assert info.media["SATA-1-0"] == str(folder / "disk.vdi")
        assert (made.disk_mib, info.fields["memory"]) == (DISK_MIB, "256")
        with data.open("rb") as raw:
            assert digest(folder / "disk.vdi", tmp_path) == hashlib.file_digest(raw, "sha256").hexdigest()
        machine("rm", "-y", "two")
    file.unlink()


def test_an_interrupt_while_the_disk_is_put_together_leaves_nothing(rig: Rig, snapshotted: VirtualBox) -> None:
    file = rig.share / "broken.machine"
    with unchanged(rig, snapshotted):
        process = subprocess.Popen(
            [sys.executable, "-m", "machine", "export", "--no-image", "dev", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with process:
            until(lambda: list(snapshotted.folder.path.glob(".export-*/*")), 60)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            _, err = process.communicate(timeout=120)
        assert (process.returncode, b"Traceback" in err) == (130, False), err
    assert not list(rig.share.glob("*broken*"))


def test_what_a_killed_export_left_goes_with_the_next(rig: Rig, snapshotted: VirtualBox) -> None:
    with unchanged(rig, snapshotted):
        words = [sys.executable, "-m", "machine", "export", "-q", "--no-image", "dev", str(rig.share / "f")]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True) as process:
            until(lambda: list(snapshotted.folder.path.glob(".export-*/*")), 60)
            os.killpg(process.pid, signal.SIGKILL)
        assert list(snapshotted.folder.path.glob(".export-*"))
        # VirtualBox's server goes on with the copy for a moment.
        until(lambda: ".export-" in rig("list", "hdds") or rig_is_idle(rig), 60)
        machine("export", "-q", "-f", "--no-image", "dev", rig.share / "f")
    (rig.share / "f").unlink()
    (rig.share / ".f.part").unlink(missing_ok=True)


def test_without_snapshots_the_disk_is_read_where_it_lies(rig: Rig, snapshotted: VirtualBox, data: Path) -> None:
    snapshotted.forget("then")
    file = rig.share / "dev.machine"
    with unchanged(rig, snapshotted):
        assert "note" not in machine("export", "--no-image", "dev", file).stderr
    assert not list(snapshotted.folder.path.glob(".export-*"))
    assert file.stat().st_size > DATA_MIB << 20
    file.unlink()


def rig_is_idle(rig: Rig) -> bool:
    """Whether none of VirtualBox's processes has worked for a second."""
    before = [process.cpu_times().user for process in rig.processes()]
    time.sleep(1)
    return [process.cpu_times().user for process in rig.processes()] == before


def until(probe: Callable[[], object], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.01)

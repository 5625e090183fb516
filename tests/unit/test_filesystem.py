"""File systems that lack something: found out before anything is made. One is real, served by sftp-server over FUSE."""

import errno
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine.drivers.qemu import Qemu, driver

from machine import create, filesystem, run, store
from machine.errors import CheckFailed
from machine.paths import MachineFolder
from machine.progress import Silent
from machine.spec import Machine
from tests.fixture_types import Invoke

MACHINE = Machine("x", "qemu", "id", "52:54:00:00:00:01", "", 1024, 2, 20000)
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
DEADLINE = 60


@pytest.fixture
def network_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that comes over SFTP: it has no sockets."""
    if not (shutil.which("sshfs") and SFTP_SERVER.exists() and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("needs sshfs, sftp-server and FUSE")
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    mountpoint.mkdir()
    ours, its = socket.socketpair()
    end = its.fileno()
    with ours, its, subprocess.Popen([SFTP_SERVER], stdin=end, stdout=end, stderr=subprocess.DEVNULL) as server:
        words, end = ["sshfs", "-f", "-o", "passive", f":{source}", str(mountpoint)], ours.fileno()
        mount = subprocess.Popen(words, stdin=end, stdout=end, stderr=subprocess.PIPE)
        its.close()
        ours.close()
        with mount:
            try:
                if not is_mounted(mountpoint, mount):
                    pytest.skip("FUSE doesn't work here")
                yield mountpoint
            finally:
                subprocess.run(["fusermount3", "-u", mountpoint], check=False, capture_output=True)
                mount.terminate()
                server.terminate()


def is_mounted(mountpoint: Path, mount: "subprocess.Popen[bytes]") -> bool:
    for _ in range(DEADLINE * 20):
        if mountpoint.is_mount():
            return True
        try:
            mount.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        return False
    return False


def test_a_network_folder_has_no_sockets(network_folder: Path) -> None:
    filesystem.check(network_folder / "store")
    with pytest.raises(CheckFailed, match="has no Unix sockets") as raised:
        filesystem.check_sockets(network_folder / "store")
    assert "MACHINE_STORAGE_PATH" in raised.value.hint
    assert list(network_folder.iterdir()) == []


def test_qemu_says_so_before_anything_is_made(network_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(network_folder / "store"))
    qemu = Qemu(MACHINE, MachineFolder(store.folder() / "x"), run.run)
    monkeypatch.setattr(driver, "find_binary", lambda wanted: f"qemu-system-{wanted}")
    with pytest.raises(CheckFailed, match="has no Unix sockets"):
        qemu.check()
    assert list(network_folder.iterdir()) == []


@pytest.mark.parametrize("depth", [0, 30])
def test_an_ordinary_folder_has_all(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["a folder of a long path"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    filesystem.check(folder / "store")
    filesystem.check_sockets(folder / "store")
    assert list(folder.iterdir()) == []


def test_what_a_killed_command_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".machine-probe-old", tmp_path / ".machine-probe-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "key").touch()
    os.utime(old, (0, 0))
    filesystem.check(tmp_path / "store")
    assert list(tmp_path.iterdir()) == [new]


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def without_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As exFAT: each file has the mode that the mount says."""
    chmod = Path.chmod
    monkeypatch.setattr(Path, "chmod", lambda path, mode: chmod(path, 0o755))


def refusing_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)


LACKS = [
    (without_locks, "no locks"),
    (without_modes, "could read your keys"),
    (refusing_modes, "no permissions of files"),
]


@pytest.mark.skipif(os.name != "posix", reason="as Linux and macOS have it")
@pytest.mark.parametrize(("lacks", "says"), LACKS, ids=[lacks.__name__ for lacks, _ in LACKS])
def test_what_a_file_system_lacks_is_told_by_create_and_doctor(
    vms: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, lacks: Callable[..., None], says: str
) -> None:
    before = sorted(vms.parent.iterdir())
    lacks(monkeypatch)
    with pytest.raises(CheckFailed, match=says) as raised:
        create.create(create.draft("dev", "fake", "", memory_mib=512, cpus=1, disk_mib=2048), Silent())
    assert "MACHINE_STORAGE_PATH" in raised.value.hint
    assert sorted(vms.parent.iterdir()) == before
    assert says in invoke("doctor").out


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdtemp(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(CheckFailed, match="Read-only file system"):
        filesystem.check(tmp_path)

"""machine export and import: a whole machine moves to another store."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import machine_fake
import pytest
from archives import apart, content, tar
from fake_fixtures import ended
from tiny_iso import iso

from machine import instance, resources, store
from machine.errors import NoSuchImage
from machine.images import cache, machineos
from machine.paths import Image, MachineFolder
from tests.fixture_types import Add, Begin, Invoke, Spawn

PUBLIC = ("id_ed25519.pub", "ssh_host_ed25519_key.pub")


@pytest.fixture
def written(invoke: Invoke, vms: Path, tmp_path: Path) -> MachineFolder:
    """A stopped machine with a disk."""
    machineos.add(iso(tmp_path / "machineos.iso"))
    assert invoke("create", "-q", "dev").code == 0
    folder = store.folder_of("dev")
    (folder / "disk.qcow2").write_bytes(bytes(range(256)) * 9000)
    (folder / "console.log").write_text("of a run")
    assert invoke("stop", "-q", "dev").code == 0
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Go on in another, empty store."""

    def go() -> Path:
        folder = tmp_path / "elsewhere"
        monkeypatch.setenv("MACHINE_STORAGE_PATH", str(folder))
        return folder

    return go


@pytest.mark.parametrize("zip", [[], ["--gzip"]], ids=["plain", "gzip"])
def test_a_machine_moves_to_another_store(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path], zip: list[str]
) -> None:
    file = tmp_path / "dev.machine"
    assert invoke("export", *zip, "dev", file).out == f"Exported dev to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    before = store.load("dev")
    kept = {name: (written / name).read_bytes() for name in ("disk.qcow2", "id_ed25519", "ssh_host_ed25519_key")}
    elsewhere()
    assert "machine start dev" in invoke("import", file).out
    made, folder = store.load("dev"), store.folder_of("dev")
    assert (made.name, made.image, made.memory_mib) == (before.name, before.image, before.memory_mib)
    assert made.uuid != before.uuid
    assert made.mac != before.mac
    assert made.disk_mib == len(kept["disk.qcow2"]) >> 10  # as the disk says, which the fake counts in KiB
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert not (folder / "console.log").exists()
    assert not list(folder.path.glob("*.pem"))
    image = Image(made.image)
    assert (image.kernel.read_bytes(), image.command_line.read_text(encoding="utf-8")) == (
        b"kernel" * 1000,
        "quiet root=x",
    )
    assert [about.digest for about in cache.cached()] == [before.image]
    with pytest.raises(NoSuchImage):  # what new machines boot is this host's choice
        cache.current("machineos")
    assert (folder / "disk.qcow2").stat().st_mode & 0o777 == 0o600
    assert invoke("start", "-q", "dev").code == 0
    assert invoke("status", "dev").out == "Running\n"


def test_a_copy_beside_it_gets_an_identity_of_its_own(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    file = tmp_path / "f"
    invoke("export", "-q", "dev", file)
    assert "already exists" in invoke("import", file).err
    made = json.loads(invoke("import", "--json", "--name", "two", file).out)
    first = store.load("dev")
    assert made["name"] == "two"
    assert made["uuid"] != first.uuid
    assert made["mac"] != first.mac
    assert made["address"] != instance.load("dev").address
    assert store.names() == ["dev", "two"]


def test_nothing_of_it_names_a_path(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    invoke("export", "-q", "dev", tmp_path / "f")
    assert str(tmp_path).encode() not in (tmp_path / "f").read_bytes()


def test_through_a_pipe(
    spawn: Spawn, begin: Begin, invoke: Invoke, written: MachineFolder, elsewhere: Callable[[], Path], tmp_path: Path
) -> None:
    with (tmp_path / "pipe").open("wb") as out:
        assert ended(begin("export", "-q", "dev", "-", stdout=out))[0] == 0
    elsewhere()
    with (tmp_path / "pipe").open("rb") as source:
        process = begin("import", "-q", "-", stdin=source)
        process.communicate(timeout=200)
    assert process.returncode == 0
    assert store.names() == ["dev"]


def test_without_its_image(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    invoke("export", "-q", "--no-image", "dev", tmp_path / "f")
    image = store.load("dev").image
    assert invoke("import", "-q", "-n", "two", tmp_path / "f").code == 0
    elsewhere()
    ended = invoke("import", "-q", tmp_path / "f")
    assert (ended.code, f"the image {image[:12]} isn't in the cache" in ended.err) == (1, True)
    assert store.names() == []


def test_an_image_that_is_there_is_not_touched(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    from fake_fixtures import add_image

    invoke("export", "-q", "dev", tmp_path / "f")
    elsewhere()
    newer = add_image(tmp_path, "machineos", b"a newer one")
    invoke("import", "-q", tmp_path / "f")
    assert cache.current("machineos").digest == newer.digest
    assert Image(store.load("dev").image).file.exists()


def test_a_running_machine_is_refused(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    invoke("start", "-q", "dev")
    ended = invoke("export", "dev", tmp_path / "f")
    assert (ended.code, "machine stop dev" in ended.err) == (2, True)
    assert list(tmp_path.glob("*f*")) == []


def test_a_file_that_is_there_is_replaced_by_force_only(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    assert invoke("export", "dev", tmp_path / "f").code == 2
    assert (tmp_path / "f").read_text() == "mine"
    assert invoke("export", "-f", "dev", tmp_path / "f").code == 0
    assert invoke("export", "absent", tmp_path / "g").code == 1


def archive(*entries: tuple[str, bytes]) -> bytes:
    return tar(list(entries), {})


def damaged(good: bytes, how: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(good)) as archived:
        about = content(archived, "about.json")
    return {
        "empty": b"",
        "text": b"not a tar at all",
        "cut in the disk": good[: len(good) // 2],
        "cut before the sums": good[: good.rindex(b"sums.json")],
        "a bit": good.replace(b"\x10\x11\x12\x13", b"\x10\x11\x12\x14", 1),
        "outside": archive(("about.json", about), ("home/../../evil", b"x")),
        "absolute": archive(("about.json", about), ("/etc/evil", b"x")),
        "a hidden file": archive(("about.json", about), ("home/.evil", b"x")),
        "of the future": archive(("about.json", about.replace(b'"format": 2', b'"format": 9'))),
        "another tar": archive(("readme", b"x")),
        "not JSON": archive(("about.json", b"{")),
        "a bad name": archive(("about.json", about.replace(b'"name": "dev"', b'"name": "../x"'))),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "cut in the disk", "cut before the sums", "a bit", "outside", "absolute", "a hidden file"),
        *("of the future", "another tar", "not JSON", "a bad name"),
    ],
)
def test_what_is_damaged_leaves_nothing(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path], how: str
) -> None:
    invoke("export", "-q", "dev", tmp_path / "f")
    (tmp_path / "f").write_bytes(damaged((tmp_path / "f").read_bytes(), how))
    folder = elsewhere()
    ended = invoke("import", "-q", tmp_path / "f")
    assert ended.code in {1, 2}
    assert ended.err.startswith("Error: ")
    assert store.names() == []
    assert not list(folder.glob("machines/[!.]*"))
    assert not list(folder.glob("images/[!.]*"))
    assert not list(tmp_path.rglob("evil"))
    assert list(cache.cached()) == []


def test_a_file_that_is_not_there(invoke: Invoke, store: Path) -> None:
    assert invoke("import", "absent").code == 1


def test_a_machine_whose_disk_lies_elsewhere(
    written: MachineFolder, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(machine_fake.Fake, "export")
    refused = invoke("export", "dev", tmp_path / "dev.machine")
    assert refused.code == 2
    assert "their disks lie outside of the store" in refused.err
    assert not (tmp_path / "dev.machine").exists()


@pytest.mark.parametrize("driver", ["generic", "none", "virtualbox-adopted"])
def test_what_stands_for_a_host_has_nothing_to_export(add: Add, invoke: Invoke, tmp_path: Path, driver: str) -> None:
    add("host", driver=driver, options={"ip_address": "127.0.0.1", "url": "tcp://127.0.0.1:1"})
    refused = invoke("export", "host", tmp_path / "f")
    assert (refused.code, "nothing of it to export" in refused.err) == (2, True)
    assert f"machine create --driver {driver}" in refused.err
    assert not (tmp_path / "f").exists()


def test_a_suspended_machine_is_refused_with_both_ways_on(
    invoke: Invoke, written: MachineFolder, tmp_path: Path
) -> None:
    invoke("start", "-q", "dev")
    invoke("suspend", "-q", "dev")
    ended = invoke("export", "dev", tmp_path / "f")
    assert (ended.code, 'the machine "dev" is suspended' in ended.err) == (2, True)
    assert "machine start dev && machine stop dev" in ended.err
    assert "machine kill dev" in ended.err
    assert not (tmp_path / "f").exists()


def test_what_stays_behind_is_told(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    assert "dev: note: a note of what stays" in invoke("export", "dev", tmp_path / "f").err


def test_other_sizes_for_a_smaller_host(invoke: Invoke, written: MachineFolder, tmp_path: Path) -> None:
    crafted = apart(exported(invoke, tmp_path))
    crafted.machine(memory_mib=1 << 30, cpus=0)
    (tmp_path / "g").write_bytes(crafted.raw())
    refused = invoke("import", "-q", "-n", "two", tmp_path / "g")
    assert (refused.code, "but this host has" in refused.err) == (3, True)
    assert invoke("import", "-q", "-n", "two", "--memory", "512M", "--cpus", "1", tmp_path / "g").code == 0
    assert (store.load("two").memory_mib, store.load("two").cpus) == (512, 1)


def test_an_archive_of_the_first_version(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    """Format 1 had the public keys, the kernel and initrd of the image, and files that nothing needs."""
    crafted = apart(exported(invoke, tmp_path))
    crafted.about = {"format": 1, "machine": crafted.about["machine"], "image": True}
    beside = {"kernel": b"theirs", "initrd": b"theirs", "cmdline": b"theirs", "clones": b"", "boot.json": b"{}"}
    crafted.files |= {f"image/{name}": content for name, content in beside.items()}
    left = ("id_ed25519.pub", "ssh_host_ed25519_key.pub", "ports.json", "snapshots.json")
    crafted.files |= {f"home/{name}": b"theirs" for name in left}
    (tmp_path / "g").write_bytes(crafted.raw())
    elsewhere()
    assert invoke("import", "-q", tmp_path / "g").code == 0
    image, folder = Image(store.load("dev").image), store.folder_of("dev")
    assert not [path for path in image.folder.iterdir() if b"theirs" in path.read_bytes()]
    assert not [path for path in folder.path.iterdir() if b"theirs" in path.read_bytes()]
    assert not (folder / "snapshots.json").exists()
    assert invoke("start", "-q", "dev").code == 0


def test_the_public_keys_are_made_of_the_private_ones(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    public = {name: (written / name).read_text(encoding="utf-8").split()[:2] for name in PUBLIC}
    (tmp_path / "f").write_bytes(exported(invoke, tmp_path))
    elsewhere()
    assert invoke("import", "-q", tmp_path / "f").code == 0
    folder = store.folder_of("dev")
    assert {name: (folder / name).read_text(encoding="utf-8").split()[:2] for name in PUBLIC} == public


def test_holes_stay_holes(
    invoke: Invoke, written: MachineFolder, tmp_path: Path, elsewhere: Callable[[], Path]
) -> None:
    with (written / "disk.qcow2").open("r+b") as file:
        file.truncate(64 << 20)
        file.seek(0, io.SEEK_END)
        file.write(b"the end")
    before = (written / "disk.qcow2").read_bytes()
    (tmp_path / "f").write_bytes(exported(invoke, tmp_path))
    elsewhere()
    assert invoke("import", "-q", tmp_path / "f").code == 0
    disk = store.folder_of("dev") / "disk.qcow2"
    assert disk.read_bytes() == before
    assert disk.stat().st_blocks * 512 < 16 << 20


def test_no_room_for_what_export_writes(begin: Begin, written: MachineFolder) -> None:
    """/dev/full takes no byte."""
    with Path("/dev/full").open("wb") as out:
        code, _, err = ended(begin("export", "-q", "dev", "-", stdout=out))
    assert (code, "No space left" in err) == (1, True)
    assert "Traceback" not in err


def test_a_machine_that_does_not_fit_is_refused_before_it_is_read(
    invoke: Invoke,
    written: MachineFolder,
    tmp_path: Path,
    elsewhere: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "f").write_bytes(exported(invoke, tmp_path))
    folder = elsewhere()
    monkeypatch.setattr(resources, "free_bytes", lambda path: 65 << 20)
    ended = invoke("import", "-q", tmp_path / "f")
    assert (ended.code, "the machine needs" in ended.err) == (3, True)
    assert "MACHINE_STORAGE_PATH" in ended.err
    assert not list(folder.glob("machines/[!.]*"))


@pytest.mark.parametrize("declared", [None, 1], ids=["first version", "a lie"])
def test_a_disk_that_fills_up_while_it_is_written(
    invoke: Invoke,
    written: MachineFolder,
    tmp_path: Path,
    elsewhere: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    declared: int | None,
) -> None:
    crafted = apart(exported(invoke, tmp_path))
    crafted.about["room"] = declared
    (tmp_path / "g").write_bytes(crafted.raw())
    folder = elsewhere()
    free = iter([10 << 30] * 4 + [64 << 20] * 100)
    monkeypatch.setattr(resources, "free_bytes", lambda path: next(free))
    ended = invoke("import", "-q", tmp_path / "g")
    assert (ended.code, "the machine needs" in ended.err) == (3, True)
    assert not list(folder.glob("machines/[!.]*"))
    assert list(cache.cached()) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small disk is made by root")
@pytest.mark.parametrize("verb", ["export", "import"])
def test_a_disk_that_is_really_full(invoke: Invoke, written: MachineFolder, tmp_path: Path, verb: str) -> None:
    """A tmpfs with room for a part of it, in a mount namespace of its own."""
    (tmp_path / "f").write_bytes(exported(invoke, tmp_path))
    small = tmp_path / "small"
    small.mkdir()
    words = {"export": f"export -q dev {small}/f", "import": f"-s {small} import -q {tmp_path}/f"}[verb]
    mount = f"mount -t tmpfs -o size={'1M' if verb == 'export' else '65M'} tmpfs {small}"
    left = f"find {small} -type f ! -name .lock ! -path '*/certs/*'"
    script = f"{mount}; {sys.executable} -m machine {words}; code=$?; {left}; exit $code"
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(machine_fake.__file__).parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode in {1, 3}
    assert "Error: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("verb", ["export", "import"])
def test_an_interrupt_leaves_nothing(
    invoke: Invoke, written: MachineFolder, begin: Begin, tmp_path: Path, verb: str
) -> None:
    """Ctrl-C while the disk is written, which is large, or comes slowly."""
    good = exported(invoke, tmp_path)
    (tmp_path / "f").unlink()
    if verb == "export":
        with (written / "disk.qcow2").open("r+b") as disk:
            disk.truncate(8 << 30)
        part = tmp_path / ".f.part"
        process = begin("export", "dev", str(tmp_path / "f"))
        wait_for(lambda: part.exists() and part.stat().st_size > 1 << 20)
        process.send_signal(signal.SIGINT)
    else:
        process = begin("import", "-n", "two", "-", stdin=subprocess.PIPE)
        assert isinstance(process.stdin, io.TextIOWrapper)
        process.stdin.buffer.write(good[:-20000])
        process.stdin.flush()
        wait_for(lambda: (store.folder_of("two") / "disk.qcow2").exists())
        process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, "interrupted" in err) == (130, True)
    assert list(tmp_path.glob("*f")) == list(tmp_path.glob(".f*")) == []
    assert store.names() == ["dev"]
    assert not store.folder_of("two").path.exists()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exported(invoke: Invoke, tmp_path: Path) -> bytes:
    assert invoke("export", "-q", "dev", tmp_path / "f").code == 0
    return (tmp_path / "f").read_bytes()

"""Machines that boot a publisher's cloud image: their disk, QEMU's command line, and what the core does then."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import machine_fake
import pytest
from fake_host import FakeHost, stand_in
from machine.drivers.qemu import Qemu, cloud_image
from machine.drivers.qemu.argv import DISK, Host, Memory
from machine.drivers.qemu.vm import Vm

from machine import create, lifecycle, run, ssh, store, upgrade
from machine.docker import api
from machine.driver import State
from machine.errors import DriverFailed, ImageCorrupt
from machine.images import cache
from machine.images.cache import ImageInfo
from machine.paths import Image, MachineFolder
from machine.progress import Silent
from machine.spec import Address, Machine

qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


@pytest.fixture
def cloud(store: Path, tmp_path: Path) -> Image:
    """A cloud image of 64 MiB in the cache."""
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    return add(disk)


def add(disk: Path) -> Image:
    about = ImageInfo("test", cache.digest(disk), "x86_64", "qcow2", disk.stat().st_size, "2024-01-01")
    cache.add(disk, about)
    return Image(about.digest)


def machine(image: Image, disk_mib: int = 2048) -> Machine:
    address = Address("127.77.0.2")
    return Machine("dev", "qemu", "u", "52:54:00:00:00:01", image.digest, 512, 1, disk_mib, address=address)


@pytest.fixture
def folder(store: Path) -> MachineFolder:
    folder = MachineFolder(store / "machines" / "dev")
    folder.path.mkdir(parents=True)
    return folder


@qemu_img
def test_the_disk_lies_over_the_image(cloud: Image, folder: MachineFolder) -> None:
    Qemu(machine(cloud), folder, run.run).create()
    found = json.loads(run.run(["qemu-img", "info", "--output=json", folder / DISK]).stdout)
    assert found["virtual-size"] == 2 << 30
    assert found["backing-filename"] == cloud_image.BASE_IMAGE
    assert (folder / cloud_image.BASE_IMAGE).samefile(cloud.file)
    shutil.rmtree(cloud.folder)
    run.run(["qemu-img", "check", "-q", folder / DISK])


@qemu_img
def test_a_disk_that_is_too_small(cloud: Image, folder: MachineFolder) -> None:
    with pytest.raises(DriverFailed, match="needs a disk of 64 MiB"):
        Qemu(machine(cloud, disk_mib=32), folder, run.run).create()


@qemu_img
def test_a_part_of_an_image_names_files_of_this_host(cloud: Image, folder: MachineFolder, tmp_path: Path) -> None:
    part = tmp_path / "part.qcow2"
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", cloud.file, "-F", "qcow2", part])
    with pytest.raises(ImageCorrupt, match="it needs the file"):
        Qemu(machine(add(part)), folder, run.run).create()


@qemu_img
def test_its_own_boot_loader_boots(cloud: Image, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vm, "host", lambda _: Host("qemu", "x86_64", "tcg", "max"))
    words = Qemu(machine(cloud), folder, run.run).vm.argv(Memory(512))
    assert "-kernel" not in words
    assert [word for word in words if "bootindex=0" in word] == [
        "virtio-blk-pci,drive=data,serial=data,discard=on,bootindex=0"
    ]
    assert not [word for word in words if "node-name=root" in word]


def test_the_core_sets_docker_up_over_ssh(
    vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_disk: Callable[[], Image]
) -> None:
    host = FakeHost("debian")
    host.answers.insert(0, ("id -nG docker", 0, "docker docker"))
    monkeypatch.setattr(machine_fake.Fake, "cloud_images", True)
    stand_in(monkeypatch, host)
    order: list[str] = []
    monkeypatch.setattr(ssh, "ready", lambda *_, **__: order.append("ssh") or True)
    monkeypatch.setattr(api.Client, "ping", lambda _: order.append("docker") or True)
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    asked = create.draft("dev", "fake", make_disk().digest, memory_mib=512, cpus=1, disk_mib=1024)
    made = create.create(asked, Silent())
    assert (vms / "dev").read_text() == State.RUNNING
    assert order == ["ssh", "docker"]
    assert json.loads(host.files["/etc/docker/daemon.json"])["hosts"][1] == "tcp://0.0.0.0:2375"
    drop_in = host.files["/etc/systemd/system/docker.service.d/machine.conf"]
    assert 'Environment="http_proxy=http://proxy.test:3128"' in drop_in
    lifecycle.stop("dev", Silent())
    before = dict(host.files)
    lifecycle.start("dev", Silent())
    assert host.files == before
    assert replace(made) == store.load("dev")
    # Its disk lies over this image: another can't take its place, and its packages are upgraded.
    assert upgrade.upgrade("dev", Silent()) == "Docker 27.3.1 -> 28.0.1"
    assert store.load("dev").image == made.image


@pytest.fixture
def make_disk(tmp_path: Path) -> Callable[[], Image]:
    def make() -> Image:
        disk = tmp_path / "raw.img"
        disk.write_bytes(bytes(510) + b"\x55\xaa")
        return add(disk)

    return make


def test_one_that_ends_while_it_boots_is_removed(
    vms: Path, monkeypatch: pytest.MonkeyPatch, make_disk: Callable[[], Image]
) -> None:
    monkeypatch.setattr(machine_fake.Fake, "cloud_images", True)
    monkeypatch.setattr(machine_fake.Fake, "start", lambda self: None)
    asked = create.draft("dev", "fake", make_disk().digest, memory_mib=512, cpus=1, disk_mib=1024)
    with pytest.raises(DriverFailed, match="stopped while it was booting"):
        create.create(asked, Silent())
    assert store.names() == []

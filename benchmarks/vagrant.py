"""vagrant with vagrant-libvirt, as Debian has them, and the guest of `machine` as a box for them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.measure import DEADLINE, run
from machine import create, files
from machine.guest import credentials, seed
from machine.images import cache
from machine.paths import Image, MachineFolder
from machine.ssh import keys
from machine.tls import certs

BOX = "machineos"
# So Vagrantfile has it.
DOMAIN = "peer_dev"
NAME = "dev"
# Which vagrant makes where there is no pool `default`.
POOL = Path("/var/lib/libvirt/images")


class Vagrant:
    """A folder with a Vagrantfile. enter: what leads a command to libvirtd; disk: as "20G".

    QEMU must be able to go through the folder.
    """

    def __init__(
        self, folder: Path, enter: tuple[str, ...], *, cpus: int, memory_mib: int, disk: str, kvm: bool
    ) -> None:
        self.folder = folder
        self.enter = enter
        self.image = Image(cache.current(BOX).digest)
        self.machine = _identity(folder)
        shutil.copy(Path(__file__).with_name("Vagrantfile"), folder)
        self.settings = {
            "VAGRANT_CWD": str(folder),
            "VAGRANT_HOME": str(folder / "vagrant.d"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "PEER_DRIVER": "kvm" if kvm else "qemu",
            "PEER_CPU": "host-passthrough" if kvm else "maximum",
            "PEER_CPUS": str(cpus),
            "PEER_MEMORY": str(memory_mib),
            "PEER_DISK": disk,
            "PEER_KERNEL": str(_readable(self.image.kernel, folder)),
            "PEER_INITRD": str(_readable(self.image.initrd, folder)),
            "PEER_COMMAND_LINE": self.image.command_line.read_text().strip(),
            "PEER_CONSOLE": str(folder / "console.log"),
            "PEER_KEY": str(self.machine.ssh_key),
            "PEER_SEED": self.machine.seed.name,
        }

    def run(self, *words: str | Path) -> str:
        return run([*self.enter, *words], **self.settings)

    def plugin(self) -> str:
        """vagrant-libvirt and its version, "" when there is none."""
        found = re.search(r"^vagrant-libvirt \(.*?\)", self.run("vagrant", "plugin", "list"), re.MULTILINE)
        return found[0] if found else ""

    def add_box(self) -> None:
        """Make a box whose disk is the image, with the root of the guest in it; and put the seed into the pool."""
        box = self.folder / "box"
        box.mkdir()
        raw = Path(shutil.copy(self.image.file, box / "raw"))
        with raw.open("r+b") as file:
            # Without its table of partitions: with that the guest takes a disk that isn't read-only for a data disk.
            file.write(bytes(512))
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, box / "box.img"])
        about = {"provider": "libvirt", "format": "qcow2", "disks": [{"path": "box.img"}]}
        (box / "metadata.json").write_text(json.dumps(about))
        run(["tar", "-C", box, "-cf", self.folder / "machineos.box", "metadata.json", "box.img"])
        self.run("vagrant", "box", "add", "--name", BOX, self.folder / "machineos.box")
        # libvirt finds it there when vagrant makes the pool.
        self.run("install", "-D", "--mode=600", self.machine.seed, POOL / self.machine.seed.name)

    def wait_for_docker(self) -> None:
        found = re.search(r"(\d+(\.\d+){3})/", self.run("virsh", "domifaddr", DOMAIN))
        if not found:
            raise RuntimeError(f"{DOMAIN} has no address")
        deadline = time.monotonic() + DEADLINE
        while not self._docker_answers(found[1]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Docker doesn't answer on {found[1]}; see {self.settings['PEER_CONSOLE']}")
            time.sleep(0.05)

    def _docker_answers(self, address: str) -> bool:
        # The certificate is for the name: the address is the choice of vagrant's network.
        trust = ("--cacert", self.machine.ca, "--cert", self.machine.cert, "--key", self.machine.key)
        there = ("--resolve", f"{NAME}:2375:{address}", f"https://{NAME}:2375/_ping")
        command: list[str | Path] = [*self.enter, "curl", "-sf", "--max-time", "10", *trust, *there]
        return subprocess.run(command, capture_output=True, check=False).stdout == b"OK"


def _identity(top: Path) -> MachineFolder:
    """Keys, certificates and a seed as a machine has them."""
    folder = MachineFolder(top / NAME)
    files.make_folder(folder.path)
    for key in (folder.ssh_key, folder.host_key):
        keys.generate(key, NAME)
    certs.renew_if_due(top / "certs", folder, names=[NAME], addresses=[])
    machine = create.draft(NAME, "libvirt", "0" * 64, memory_mib=1024, cpus=1, disk_mib=1024)
    seed.write(folder.seed, credentials.describe(machine, folder))
    return folder


def _readable(file: Path, folder: Path) -> Path:
    """A copy for QEMU, which isn't root and can't look into the cache of images."""
    copy = Path(shutil.copy(file, folder))
    copy.chmod(0o644)
    return copy

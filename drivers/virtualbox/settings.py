"""The virtual hardware, as words for VBoxManage."""

from __future__ import annotations

from pathlib import Path

from machine import resources
from machine.driver import Machine
from machine.paths import MachineFolder, same
from machine.spec import DOCKER_PORT

from .options import Options
from .parse import Forward

CONTROLLER = "SATA"
_MARK = "Made by machine; it lies in "
# The data disk, in the machine's folder.
DISK_FILE = "disk.vdi"
# Ports of the controller.
SYSTEM, DISK, SEED = 0, 1, 2


def is_arm() -> bool:
    return resources.architecture() == "aarch64"


def create(machine: Machine, folder: MachineFolder, *, arm: bool = is_arm()) -> list[str]:
    """createvm: the virtual machine has our machine's UUID, so that a name never has to tell which one is meant."""
    kind = ["--platform-architecture", "arm", "--ostype", "Debian_arm64"] if arm else ["--ostype", "Linux26_64"]
    place = ["--basefolder", str(folder.path)]
    return ["createvm", "--name", machine.name, "--uuid", machine.uuid, *kind, *place, "--register"]


def modify(
    machine: Machine, folder: MachineFolder, options: Options, version: tuple[int, int, int], *, arm: bool = is_arm()
) -> list[str]:
    """modifyvm for all that holds for the machine's life."""
    return [
        *("modifyvm", machine.uuid, "--description", mark(folder)),
        *("--cpus", str(machine.cpus), "--memory", str(machine.memory_mib), "--vram", "16"),
        *("--firmware", options.firmware or ("efi" if arm else "bios"), "--rtcuseutc", "on"),
        *("--boot1", "dvd", "--boot2", "none", "--boot3", "none", "--boot4", "none"),
        *([] if arm else _pc()),
        *("--usbohci", "off", "--usbehci", "off", "--usbxhci", "off", "--mouse", "ps2", "--keyboard", "ps2"),
        *("--audio-driver" if version >= (7, 0, 0) else "--audio", "none", "--vrde", "off"),
        *("--clipboard-mode", "disabled", "--draganddrop", "disabled", "--defaultfrontend", options.ui_type),
        *("--uart1", "0x3F8", "4", "--uartmode1", "file", str(folder.console)),
        *_nat(machine, options),
    ]


def mark(folder: MachineFolder) -> str:
    """The description by which a virtual machine is known as ours, and as this store's."""
    return f"{_MARK}{folder.path}"


def is_marked(description: str, folder: MachineFolder) -> bool:
    """Whether a description is the mark of that machine's folder, however the path in it is spelled."""
    text = description.strip()
    return text.startswith(_MARK) and same(Path(text.removeprefix(_MARK)), folder.path)


def _pc() -> list[str]:
    return [
        *("--graphicscontroller", "vmsvga", "--acpi", "on", "--ioapic", "on", "--hpet", "on", "--pae", "on"),
        *("--longmode", "on", "--hwvirtex", "on", "--nestedpaging", "on", "--largepages", "on", "--vtxvpid", "on"),
        *("--paravirtprovider", "kvm", "--biosbootmenu", "disabled"),
        *("--bioslogofadein", "off", "--bioslogofadeout", "off", "--bioslogodisplaytime", "0"),
    ]


def _nat(machine: Machine, options: Options) -> list[str]:
    rules = [word for forward in forwards(machine) for word in ("--natpf1", str(forward))]
    return [
        *("--nic1", "nat", "--nictype1", options.nat_nictype, "--cableconnected1", "on"),
        *("--macaddress1", machine.mac.replace(":", ""), "--natdnsproxy1", "off" if options.no_dns_proxy else "on"),
        *("--natdnshostresolver1", "on" if options.host_dns_resolver else "off", *rules),
    ]


def forwards(machine: Machine) -> list[Forward]:
    """The two that every machine has, on its loopback address."""
    address = machine.address
    assert address is not None
    return [
        Forward("docker", "tcp", address.host, address.docker_port, DOCKER_PORT),
        Forward("ssh", "tcp", address.host, address.ssh_port, 22),
    ]


def controller(uuid: str) -> list[str]:
    return ["storagectl", uuid, "--name", CONTROLLER, "--add", "sata", "--portcount", "3", "--hostiocache", "on"]


def medium(path: Path, size_mib: int) -> list[str]:
    """createmedium: a VDI that grows as it fills is 2 MB at first, and made in 40 ms."""
    return ["createmedium", "disk", "--filename", str(path), "--size", str(size_mib), "--format", "VDI"]


def attach_disk(uuid: str, path: Path) -> list[str]:
    # Not rotational: the guest then leaves out what only helps a spinning disk.
    return [*_attach(uuid, DISK), "--type", "hdd", "--nonrotational", "on", "--medium", str(path)]


def attach_cd(uuid: str, port: int, path: Path | str) -> list[str]:
    return [*_attach(uuid, port), "--type", "dvddrive", "--medium", str(path)]


def _attach(uuid: str, port: int) -> list[str]:
    return ["storageattach", uuid, "--storagectl", CONTROLLER, "--port", str(port), "--device", "0"]


def second_mac(machine: Machine) -> str:
    """The second card's address: the first one's with another third byte."""
    words = machine.mac.split(":")
    words[2] = f"{int(words[2], 16) ^ 1:02x}"
    return ":".join(words)

"""QEMU's command line, as a pure function of what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from machine.driver import Machine
from machine.paths import Home, Image

PIDFILE = "qemu.pid"
MONITOR = "qmp.sock"
# A monitor serves one client at a time; this one belongs to the helper that forwards ports.
PORTS_MONITOR = "ports.sock"
AGENT = "agent.sock"
DISK = "disk.qcow2"

# The translation cache of TCG counts as the machine's memory: without a limit a 1 GiB guest stood at 1.6 GiB.
TCG_CACHE_MIB = 256

_BOARD = {"x86_64": "q35", "aarch64": "virt"}


def argv(
    machine: Machine,
    home: Home,
    *,
    binary: str,
    architecture: str,
    accelerator: str,
    cpu: str,
    image: Image,
    command_line: str,
) -> list[str]:
    """The command that starts the machine and puts itself into the background once its devices are there.

    architecture is "x86_64" or "aarch64"; command_line is the kernel's.
    """
    return [
        *(binary, "-name", f"machine-{machine.name},process=machine-{machine.name}", "-uuid", machine.uuid),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _board(architecture), "-accel", _accelerator(accelerator)),
        *("-cpu", cpu, "-smp", str(machine.cpus), "-m", str(machine.memory_mib)),
        *_boot(image, command_line),
        *_disk("data", home / DISK, "qcow2"),
        *_medium("seed", home.seed),
        *_network(machine),
        *_channels(home, architecture),
        *("-rtc", "base=utc,clock=host"),
        *("-pidfile", str(home / PIDFILE), "-daemonize"),
    ]


def _board(architecture: str) -> str:
    # No VMware port, no USB, no ACPI sleep: nothing in the guest uses them, and each costs time at boot.
    return f"{_BOARD[architecture]},usb=off" + (",vmport=off,smm=off" if architecture == "x86_64" else "")


def _accelerator(accelerator: str) -> str:
    return f"tcg,thread=multi,tb-size={TCG_CACHE_MIB}" if accelerator == "tcg" else accelerator


def _boot(image: Image, command_line: str) -> Sequence[str]:
    kernel = ("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", command_line)
    return [*kernel, *_medium("root", image.file)]


def _medium(name: str, path: Path) -> Sequence[str]:
    """A disk that is only read: a system's or seed's ISO."""
    return [
        *("-blockdev", f"driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={_escaped(path)}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    ]


def _disk(name: str, path: Path, driver: str) -> Sequence[str]:
    # A block that the guest gives up or fills with zeros is given back to the host.
    options = "discard=unmap,detect-zeroes=unmap,file.driver=file,file.discard=unmap"
    return [
        *("-blockdev", f"driver={driver},node-name={name},{options},file.filename={_escaped(path)}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name},discard=on"),
    ]


def _network(machine: Machine) -> Sequence[str]:
    address = machine.address
    assert address is not None
    forwards = [
        f"hostfwd=tcp:{address.host}:{address.docker_port}-:2375",
        f"hostfwd=tcp:{address.host}:{address.ssh_port}-:22",
    ]
    return [
        *("-netdev", ",".join(["user", "id=net", *forwards])),
        # Without its boot ROM: we never boot from the network.
        *("-device", f"virtio-net-pci,netdev=net,mac={machine.mac},romfile="),
    ]


def _channels(home: Home, architecture: str) -> Sequence[str]:
    return [
        *("-chardev", f"file,id=console,path={_escaped(home.console)},append=on", "-serial", "chardev:console"),
        *("-chardev", _socket("monitor", home / MONITOR), "-mon", "chardev=monitor,mode=control"),
        *("-chardev", _socket("ports", home / PORTS_MONITOR), "-mon", "chardev=ports,mode=control"),
        *("-chardev", _socket("agent", home / AGENT), "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,free-page-reporting=on"),
        # A guest that finds another generation than before reseeds its random numbers.
        *(("-device", "vmgenid,guid=auto") if architecture == "x86_64" else ()),
    ]


def _socket(name: str, path: Path) -> str:
    return f"socket,id={name},path={_escaped(path)},server=on,wait=off"


def _escaped(path: Path) -> str:
    """A comma in a path is written twice in QEMU's option lists."""
    return str(path).replace(",", ",,")

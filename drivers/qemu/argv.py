"""QEMU's command line, as a pure function of what was asked for."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import acceleration, paths
from machine.driver import Machine
from machine.errors import CheckFailed
from machine.folders import installation, mount_spec
from machine.paths import Image, MachineFolder
from machine.spec import DOCKER_PORT

# Bytes of a guestfwd's value: what is longer QEMU cuts off without a word (net/slirp.c, slirp_config_str).
_FORWARD_ROOM = 1023
# In the command line of a QEMU that starts it.
FORWARD = f"tcp:{mount_spec.SERVER}:{mount_spec.PORT}-cmd:"
PIDFILE = "qemu.pid"
MONITOR = "qmp.sock"
# A monitor serves one client at a time; this one belongs to the helper that forwards ports.
PORTS_MONITOR = "ports.sock"
AGENT = "agent.sock"
# Where the guest of a template waits to be told that it is a clone now.
RESUME = "resume.sock"
DISK = "disk.qcow2"
# What the disk lies over: its template's, linked, which stays when the template goes; or a cloud image.
BASE_DISK = "base.qcow2"
BASE_IMAGE = "base.img"
PARTS = frozenset({DISK, BASE_DISK, BASE_IMAGE})
# In the folder of a machine that was never started: its first start is that of a clone of the template it names.
CLONE_OF = "clone-of"
# The state of a suspended machine, and how its QEMU was laid out: see suspended.py.
SUSPENDED = "suspended"
SUSPENDED_LAYOUT = "suspended.json"

# The translation cache of TCG counts as the machine's memory: without a limit a 1 GiB guest stood at 1.6 GiB. A boot
# took 13 s with 64 MiB as with 256, and 18 s with 32.
TCG_CACHE_MIB = 64

# Room for memory that is plugged into the running machine. It costs nothing until it is used, and must be the same for
# a template and its clones.
ROOM_MIB = 64 * 1024

# Bounce buffers for devices that reach only 4 GiB: there are none here, and with room for more memory than that the
# kernel would set 64 MiB aside.
COMMAND_LINE = "swiotlb=noforce"

_BOARD = {"x86_64": "q35", "aarch64": "virt"}


@dataclass(frozen=True)
class Host:
    """How this host runs a guest.

    architecture: "x86_64" or "aarch64"; accelerator as -accel takes it; system as sys.platform has it, since QEMU lacks
    some options on some.
    """

    binary: str
    architecture: str
    accelerator: str
    cpu: str
    system: str = "linux"

    @property
    def is_linux(self) -> bool:
        return self.system == "linux"

    @property
    def plugs_memory(self) -> bool:
        """Whether a running machine can get more memory: QEMU has virtio-mem on Linux only (hw/virtio/Kconfig)."""
        return self.is_linux


@dataclass(frozen=True)
class Memory:
    """What the machine starts with, in MiB; the rest is plugged into it when it runs.

    file: where it lies, in anonymous memory when None. shared: whether what the guest writes goes into that file (a
    template's) or stays with the process (a clone's). read_only: open the file so that nothing can change it; QEMU 8.2
    and later do. reporting: the guest tells which pages are free, and they are given back to the host.
    """

    base_mib: int
    file: Path | None = None
    shared: bool = False
    read_only: bool = False
    reporting: bool = True


def argv(
    machine: Machine,
    folder: MachineFolder,
    *,
    host: Host,
    image: Image,
    command_line: str,
    memory: Memory,
    incoming: bool = False,
    sockets: Path | None = None,
) -> list[str]:
    """The command that starts the machine and puts itself into the background once its devices are there.

    command_line is the kernel's, "" for a disk that has a boot loader. incoming: wait for a saved state, don't boot.
    sockets: a short path that leads to the machine's folder, when its own is too long for them.
    """
    return [
        *(host.binary, "-name", _name(machine, host), "-uuid", machine.uuid),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _board(host.architecture), "-accel", _accelerator(host.accelerator)),
        *("-cpu", host.cpu, "-smp", str(machine.cpus)),
        *_memory(memory, host),
        *(_boot(image, _kernel_options(command_line, host)) if command_line else ()),
        *_disk("data", folder / DISK, "qcow2", boots=not command_line),
        *_medium("seed", folder.seed),
        *_network(machine, folder, shares=bool(command_line)),
        *_channels(folder, sockets or folder.path, host.architecture),
        *("-device", f"virtio-balloon-pci,id=balloon,free-page-reporting={_on(memory.reporting)}"),
        *("-rtc", "base=utc,clock=host"),
        *("-pidfile", str(folder / PIDFILE), "-daemonize"),
        *(("-incoming", "defer") if incoming else ()),
    ]


def _name(machine: Machine, host: Host) -> str:
    # QEMU refuses process= where the system can't rename a process (os-posix.c): everywhere but on Linux.
    name = f"machine-{machine.name}"
    return f"{name},process={name}" if host.is_linux else name


def _board(architecture: str) -> str:
    # No VMware port, no USB, no system management mode: nothing in the guest uses them, and each costs time at boot.
    board = f"{_BOARD[architecture]},usb=off,memory-backend=ram"
    # The newest interrupt controller that there is: version 2, the default, knows 8 processors.
    return f"{board},vmport=off,smm=off" if architecture == "x86_64" else f"{board},gic-version=max"


def _accelerator(accelerator: str) -> str:
    return f"tcg,thread=multi,tb-size={TCG_CACHE_MIB}" if accelerator == "tcg" else accelerator


def _memory(memory: Memory, host: Host) -> Sequence[str]:
    base = f"id=ram,size={memory.base_mib}M"
    if memory.file is None:
        backend = f"memory-backend-ram,{base}"
    else:
        backend = f"memory-backend-file,{base},mem-path={_escaped(memory.file)},share={_on(memory.shared)}"
        backend += ",readonly=on,rom=off" if memory.read_only else ""
    if not host.plugs_memory:
        # Nor room for more: Apple's processors address 36 bits on some, which the room would exceed.
        return ["-m", f"{memory.base_mib}M", "-object", backend]
    return [
        *("-m", f"{memory.base_mib}M,maxmem={memory.base_mib + ROOM_MIB}M", "-object", backend),
        *("-object", f"memory-backend-ram,id=room,size={ROOM_MIB}M,reserve=off"),
        *("-device", "virtio-mem-pci,id=memory,memdev=room,requested-size=0"),
    ]


def _kernel_options(command_line: str, host: Host) -> str:
    more = acceleration.kernel_options(host.accelerator, host.architecture)
    return " ".join(filter(None, (command_line, COMMAND_LINE, more)))


def _boot(image: Image, command_line: str) -> Sequence[str]:
    kernel = ("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", command_line)
    return [*kernel, *_medium("root", image.file)]


def _medium(name: str, path: Path) -> Sequence[str]:
    """A disk that is only read: a system's or seed's ISO."""
    return [
        *("-blockdev", f"driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={_escaped(path)}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    ]


def _disk(name: str, path: Path, driver: str, *, boots: bool = False) -> Sequence[str]:
    # A block that the guest gives up or fills with zeros is given back to the host.
    options = "discard=unmap,detect-zeroes=unmap,file.driver=file,file.discard=unmap"
    return [
        *("-blockdev", f"driver={driver},node-name={name},{options},file.filename={_escaped(path)}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name},discard=on{',bootindex=0' if boots else ''}"),
    ]


def _network(machine: Machine, folder: MachineFolder, *, shares: bool) -> Sequence[str]:
    address = machine.address
    forwards = (
        [
            f"hostfwd=tcp:{address.host}:{address.docker_port}-:{DOCKER_PORT}",
            f"hostfwd=tcp:{address.host}:{address.ssh_port}-:22",
        ]
        if address
        else []
    )
    return [
        *("-netdev", ",".join(["user", "id=net", *forwards, *(folders_server(machine, folder) if shares else ())])),
        # Without its boot ROM: we never boot from the network.
        *("-device", f"virtio-net-pci,netdev=net,mac={machine.mac},romfile="),
    ]


def folders_server(machine: Machine, folder: MachineFolder) -> Sequence[str]:
    """QEMU starts the server of host folders for each connection of the guest, which is its standard input.

    Nothing listens for it on the host, where other users could come. A machine without folders has it, too: a running
    QEMU can't be given it, and a folder may be added at any time.

    Raises CheckFailed when the command is too long for QEMU, and the machine has folders.
    """
    command = shlex.join(installation.server(folder.path))
    server = f"{FORWARD}{command}"
    if len(os.fsencode(server)) > _FORWARD_ROOM:
        if not machine.mounts:
            return ()
        raise CheckFailed(
            f"QEMU can't start what serves shared folders: the paths {sys.executable} and {folder.path} are too long",
            hint=f"export {paths.STORE_VARIABLE}=/var/tmp/machine",
        )
    return [f"guestfwd={server.replace(',', ',,')}"]


def _channels(folder: MachineFolder, sockets: Path, architecture: str) -> Sequence[str]:
    return [
        *("-chardev", f"file,id=console,path={_escaped(folder.console)},append=on", "-serial", "chardev:console"),
        *("-chardev", _socket("monitor", sockets / MONITOR), "-mon", "chardev=monitor,mode=control"),
        *("-chardev", _socket("ports", sockets / PORTS_MONITOR), "-mon", "chardev=ports,mode=control"),
        *("-device", "virtio-serial-pci", "-chardev", _socket("agent", sockets / AGENT)),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-chardev", _socket("resume", sockets / RESUME)),
        *("-device", "virtserialport,chardev=resume,name=org.machineos.resume"),
        *("-device", "virtio-rng-pci"),
        # A guest that finds another generation than before reseeds its random numbers.
        *(("-device", "vmgenid,guid=auto") if architecture == "x86_64" else ()),
    ]


def _socket(name: str, path: Path) -> str:
    return f"socket,id={name},path={_escaped(path)},server=on,wait=off"


def _on(yes: bool) -> str:
    return "on" if yes else "off"


def _escaped(path: Path) -> str:
    """A comma in a path is written twice in QEMU's option lists."""
    return str(path).replace(",", ",,")

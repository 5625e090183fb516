import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machine.drivers.qemu.argv import Host, Memory, argv

from machine import acceleration
from machine.errors import CheckFailed
from machine.paths import Image, MachineFolder
from machine.spec import Address, Machine

MACHINE = Machine(
    name="dev",
    driver="qemu",
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    mac="52:54:00:12:34:56",
    image="d1g",
    memory_mib=2048,
    cpus=3,
    disk_mib=20480,
    address=Address("127.77.0.2", 2375, 2222),
)
HOST = Host("/usr/bin/qemu-system-x86_64", "x86_64", "kvm", "host")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_IMAGES_PATH", "/images")
    for variable in ("PYTHONPATH", "PYTHONHOME"):  # with them our Python is started otherwise
        monkeypatch.delenv(variable, raising=False)


def command(home: str = "/store/machines/dev", machine: Machine = MACHINE, **changes: Any) -> list[str]:
    asked = {"host": HOST, "command_line": "console=ttyS0 quiet", "memory": Memory(2048)} | changes
    words: list[str] = argv(machine, MachineFolder(Path(home)), image=Image("d1g"), **asked)
    return words


def test_the_whole_command() -> None:
    assert command() == [
        "/usr/bin/qemu-system-x86_64",
        *("-name", "machine-dev,process=machine-dev"),
        *("-uuid", "01234567-89ab-cdef-0123-456789abcdef"),
        *("-nodefaults", "-no-user-config"),
        *("-display", "none"),
        *("-machine", "q35,usb=off,memory-backend=ram,vmport=off,smm=off"),
        *("-accel", "kvm"),
        *("-cpu", "host"),
        *("-smp", "3"),
        *("-m", "2048M,maxmem=67584M"),
        *("-object", "memory-backend-ram,id=ram,size=2048M"),
        *("-object", "memory-backend-ram,id=room,size=65536M,reserve=off"),
        *("-device", "virtio-mem-pci,id=memory,memdev=room,requested-size=0"),
        *("-kernel", "/images/d1g/kernel"),
        *("-initrd", "/images/d1g/initrd"),
        *("-append", "console=ttyS0 quiet swiotlb=noforce"),
        *("-blockdev", "driver=raw,node-name=root,read-only=on,file.driver=file,file.filename=/images/d1g/image"),
        *("-device", "virtio-blk-pci,drive=root,serial=root"),
        "-blockdev",
        "driver=qcow2,node-name=data,discard=unmap,detect-zeroes=unmap,file.driver=file,file.discard=unmap,"
        "file.filename=/store/machines/dev/disk.qcow2",
        *("-device", "virtio-blk-pci,drive=data,serial=data,discard=on"),
        "-blockdev",
        "driver=raw,node-name=seed,read-only=on,file.driver=file,file.filename=/store/machines/dev/seed.iso",
        *("-device", "virtio-blk-pci,drive=seed,serial=seed"),
        "-netdev",
        "user,id=net,hostfwd=tcp:127.77.0.2:2375-:2375,hostfwd=tcp:127.77.0.2:2222-:22,"
        f"guestfwd=tcp:10.0.2.100:2049-cmd:{sys.executable} -I -m machine.folders /store/machines/dev",
        *("-device", "virtio-net-pci,netdev=net,mac=52:54:00:12:34:56,romfile="),
        *("-chardev", "file,id=console,path=/store/machines/dev/console.log,append=on"),
        *("-serial", "chardev:console"),
        *("-chardev", "socket,id=monitor,path=/store/machines/dev/qmp.sock,server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-chardev", "socket,id=ports,path=/store/machines/dev/ports.sock,server=on,wait=off"),
        *("-mon", "chardev=ports,mode=control"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", "socket,id=agent,path=/store/machines/dev/agent.sock,server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-chardev", "socket,id=resume,path=/store/machines/dev/resume.sock,server=on,wait=off"),
        *("-device", "virtserialport,chardev=resume,name=org.machineos.resume"),
        *("-device", "virtio-rng-pci"),
        *("-device", "vmgenid,guid=auto"),
        *("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"),
        *("-rtc", "base=utc,clock=host"),
        *("-pidfile", "/store/machines/dev/qemu.pid"),
        "-daemonize",
    ]


def changed(**changes: Any) -> list[tuple[str, str]]:
    """What stands at a place of the plain command, and what stands there now."""
    return [pair for pair in zip(command(), command(**changes), strict=True) if pair[0] != pair[1]]


def test_emulation_has_threads_and_a_bounded_cache() -> None:
    host = replace(HOST, accelerator="tcg", cpu="max")
    plain = "console=ttyS0 quiet swiotlb=noforce"
    assert changed(host=host) == [
        ("kvm", "tcg,thread=multi,tb-size=64"),
        ("host", "max"),
        (plain, f"{plain} clearcpuid=cx16"),
    ]


def test_the_memory_of_a_template_and_of_a_clone() -> None:
    plain = "memory-backend-ram,id=ram,size=2048M"
    file = "memory-backend-file,id=ram,size=2048M,mem-path=/t,,1/memory"
    where = Path("/t,1/memory")
    assert changed(memory=Memory(2048, where, shared=True)) == [(plain, f"{file},share=on")]
    assert changed(memory=Memory(2048, where)) == [(plain, f"{file},share=off")]
    assert changed(memory=Memory(2048, where, read_only=True)) == [(plain, f"{file},share=off,readonly=on,rom=off")]
    silent = Memory(2048, reporting=False)
    assert [now.rpartition("=")[2] for _, now in changed(memory=silent)] == ["off"]


def test_what_waits_for_a_saved_state() -> None:
    assert command(incoming=True) == [*command(), "-incoming", "defer"]


def test_a_machine_without_an_address_has_no_forwards() -> None:
    ((_, network),) = changed(machine=replace(MACHINE, address=None))
    assert network.startswith("user,id=net,guestfwd=")


def test_arm_has_another_board_and_no_generation_id() -> None:
    words = command(host=replace(HOST, architecture="aarch64"))
    assert words[words.index("-machine") + 1] == "virt,usb=off,memory-backend=ram,gic-version=max"
    assert "vmgenid,guid=auto" not in words


@pytest.mark.parametrize(("architecture", "accelerator"), [("aarch64", "hvf"), ("x86_64", "hvf"), ("x86_64", "tcg")])
def test_macos_has_neither_names_of_processes_nor_virtio_mem(architecture: str, accelerator: str) -> None:
    host = replace(HOST, architecture=architecture, accelerator=accelerator)
    linux, mac = command(host=host), command(host=replace(host, system="darwin"))
    assert set(linux) - set(mac) == {
        "machine-dev,process=machine-dev",
        "2048M,maxmem=67584M",
        "memory-backend-ram,id=room,size=65536M,reserve=off",
        "virtio-mem-pci,id=memory,memdev=room,requested-size=0",
    }
    assert set(mac) - set(linux) == {"machine-dev", "2048M"}


def test_a_comma_in_a_path_is_doubled_where_qemu_splits_at_it() -> None:
    words = command("/a,b/machines/dev")
    files = [word for word in words if "machines/dev" in word]
    assert [word for word in files if "/a,,b/" not in word] == ["/a,b/machines/dev/qemu.pid"]
    assert len(files) == 9


def test_the_server_of_shared_folders_is_started_by_qemu() -> None:
    words = command("/my store,1/machines/dev")
    (network,) = [word for word in words if word.startswith("user,")]
    server = f"{sys.executable} -I -m machine.folders '/my store,,1/machines/dev'"
    assert network.endswith(f",guestfwd=tcp:10.0.2.100:2049-cmd:{server}")


def test_a_server_of_shared_folders_that_qemu_would_cut_off_is_refused() -> None:
    """What is longer than 1023 bytes QEMU would start in part."""
    machine = replace(MACHINE, mounts=("/home/ann",))
    room = 1023 - len(f"tcp:10.0.2.100:2049-cmd:{sys.executable} -I -m machine.folders ")
    command("/" + "x" * (room - 1), machine=machine)
    with pytest.raises(CheckFailed, match="too long"):
        command("/" + "x" * room, machine=machine)
    command("/" + "x" * 2000)


def test_only_x86_does_without_an_instruction() -> None:
    assert acceleration.kernel_options("tcg", "aarch64") == ""
    assert acceleration.kernel_options("kvm", "x86_64") == ""

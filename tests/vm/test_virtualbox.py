"""One real VirtualBox machine goes through its whole life, by the driver's own methods.

The guest is a tiny Linux with an SSH server, because the processor is interpreted here. The tests build on each other.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from machine.drivers.virtualbox import VirtualBox, parse
from machine.drivers.virtualbox.ports import Rules
from virtualbox_rig import Rig, rig

from machine import paths, spec, store
from machine.create import draft
from machine.docker.ports import bring_in_line, why_not
from machine.driver import State
from machine.errors import DriverFailed
from machine.guest import shutdown
from machine.images import cache
from machine.images.cache import ImageInfo
from machine.run import run
from machine.spec import Address, Machine

__all__ = ["rig"]

# The helper outlives who started it, and is meant to.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

# On an idle host SSH answers after 53 s. Others' machines may have the processor, too.
BOOT = 240.0
WAKE = 90.0
BOOT_ID = "boot_id"
# What the guest writes on its disk after a snapshot, and where.
WRITTEN, AT = "written after the snapshot", 700 << 20
ADDRESS = Address("127.77.255.3", 2375, 2222)


def until(what: str, timeout: float, probe: object) -> None:
    assert callable(probe)
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.3)
    print(f"{what}: {time.monotonic() - began:.1f} s")


@pytest.fixture(scope="module")
def driver(rig: Rig) -> Iterator[VirtualBox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.STORE_VARIABLE, str(rig.share / "store"))
        patch.setenv(paths.IMAGES_VARIABLE, str(rig.share / "images"))
        iso = rig.guest / "tiny.iso"
        about = ImageInfo("tiny", cache.digest(iso), "x86_64", "iso", iso.stat().st_size, "2026-01-01")
        image = cache.add(iso, about)
        key = rig.share / "id"
        shutil.copy(rig.guest / "id", key)
        key.chmod(0o600)
        folder = store.folder_of("dev")
        folder.path.mkdir(parents=True)
        asked = draft("dev", "virtualbox", image.digest, memory_mib=256, cpus=1, disk_mib=2000)
        options = {"no_vtx_check": True, "no_share": True, "nat_nictype": "82540EM"}  # the card that the guest knows
        machine = Machine(**{**vars(asked), "address": ADDRESS, "options": options, "tls": False})
        folder.config.write_text(spec.dumps(machine))
        folder.seed.write_bytes(b"\0" * 1048576)
        made = VirtualBox(machine, folder, run)
        yield made
        made.remove()


def word(rig: Rig, driver: VirtualBox) -> str:
    """The state in VirtualBox's own word."""
    return str(parse.machinereadable(rig.info(driver.uuid))["VMState"])


def banner(address: Address = ADDRESS) -> bool:
    try:
        with socket.create_connection((address.host, address.ssh_port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def boot_id(rig: Rig) -> str:
    """Tells one boot of the guest from another."""
    return in_guest(rig, "cat /proc/sys/kernel/random/boot_id")


def in_guest(rig: Rig, command: str) -> str:
    """What a command prints there; a login costs the interpreted guest 10 to 30 s."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60")
    words = [word for option in options for word in ("-o", option)]
    address = ("-p", str(ADDRESS.ssh_port), f"root@{ADDRESS.host}")
    return subprocess.run(
        ["ssh", "-F", "none", "-i", rig.share / "id", *words, *address, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def helpers(driver: VirtualBox) -> list[psutil.Process]:
    words = ["machine.drivers.virtualbox", str(driver.folder.path)]
    return [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-2:] == words]


def rules(rig: Rig, driver: VirtualBox) -> set[str]:
    info = parse.Info(parse.machinereadable(rig.info(driver.uuid)))
    return {rule.name for rule in info.forwards}


def test_a_port_that_is_taken_is_told_before_the_start(rig: Rig, driver: VirtualBox) -> None:
    driver.create()
    taken = pytest.raises(DriverFailed, match="port 2222, for SSH, can't be opened: another program")
    with socket.create_server((ADDRESS.host, ADDRESS.ssh_port)), taken:
        driver.start()
    assert word(rig, driver) == "poweroff"


def test_start_to_ssh_on_the_loopback_address(rig: Rig, driver: VirtualBox) -> None:
    driver.start()
    assert driver.state() is State.RUNNING
    assert word(rig, driver) == "running"
    until("the guest's first words on the console", BOOT, lambda: driver.folder.console.read_bytes())
    until("SSH answers", BOOT, banner)
    rig.share.joinpath(BOOT_ID).write_text(boot_id(rig))
    assert b"GUEST-UP" in driver.folder.console.read_bytes()
    assert not banner(Address("127.0.0.1", 2375, ADDRESS.ssh_port))


def test_start_of_a_running_machine_changes_nothing(rig: Rig, driver: VirtualBox) -> None:
    driver.start()
    assert word(rig, driver) == "running"


def test_published_ports_come_and_go_live(rig: Rig, driver: VirtualBox) -> None:
    way = Rules(driver.vboxmanage, driver.uuid, ADDRESS)
    with socket.create_server((ADDRESS.host, 8081)):
        failed = bring_in_line([(way, {("tcp", 8080), ("tcp", 8081), ("udp", 5353)})])
    assert failed == {("tcp", 8081): f"another program of this host uses it on {ADDRESS.host}"}
    assert rules(rig, driver) == {"docker", "ssh", "tcp-8080", "udp-5353"}
    until("the port is open", 20, lambda: why_not("tcp", ADDRESS.host, 8080))
    bring_in_line([(way, {("udp", 5353)})])
    assert rules(rig, driver) == {"docker", "ssh", "udp-5353"}
    until("the port is closed", 20, lambda: not why_not("tcp", ADDRESS.host, 8080))


def test_pause_and_go_on(rig: Rig, driver: VirtualBox) -> None:
    rig("controlvm", driver.uuid, "pause")
    assert driver.state() is State.PAUSED
    driver.start()
    assert driver.state() is State.RUNNING


def test_suspend_and_go_on(rig: Rig, driver: VirtualBox) -> None:
    driver.suspend()
    assert driver.state() is State.SAVED
    assert word(rig, driver) == "saved"
    until("no process is left", 20, lambda: all(one.name() != "VBoxHeadless" for one in rig.processes()))
    assert not why_not("tcp", ADDRESS.host, ADDRESS.ssh_port)
    driver.start()
    assert driver.state() is State.RUNNING
    # That it is the same boot is seen after the restore below.
    until("SSH answers again", WAKE, banner)


def test_a_snapshot_of_the_running_machine(rig: Rig, driver: VirtualBox) -> None:
    driver.snapshot("then")
    assert driver.state() is State.RUNNING
    [snapshot] = driver.snapshots()
    assert (snapshot.name, snapshot.running) == ("then", True)
    # It goes to another file now: see the export below.
    in_guest(rig, f"echo '{WRITTEN}' | dd of=/dev/sda bs=512 seek={AT // 512} conv=fsync")


def test_kill(rig: Rig, driver: VirtualBox) -> None:
    driver.kill()
    assert driver.state() is State.STOPPED
    assert word(rig, driver) == "poweroff"
    driver.kill()


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img isn't installed here")
def test_what_was_written_after_a_snapshot_is_exported(rig: Rig, driver: VirtualBox, tmp_path: Path) -> None:
    with driver.export() as export:
        disk = export.files["disk.vdi"]
        subprocess.run(
            ["qemu-img", "convert", "-f", "vdi", "-O", "raw", disk, tmp_path / "raw"], check=True, timeout=120
        )
    with (tmp_path / "raw").open("rb") as raw:
        raw.seek(AT)
        assert raw.read(len(WRITTEN)) == WRITTEN.encode()
    assert not list(driver.folder.path.glob(".export-*"))
    assert "then" in export.left[0]


def test_restore_brings_back_the_running_machine(rig: Rig, driver: VirtualBox) -> None:
    driver.restore("then")
    assert driver.state() is State.RUNNING
    until("SSH answers again", WAKE, banner)
    assert boot_id(rig) == rig.share.joinpath(BOOT_ID).read_text()
    assert rules(rig, driver) == {"docker", "ssh", "udp-5353"}  # as they were; the helper brings them in line
    driver.forget("then")
    assert driver.snapshots() == []
    assert driver.state() is State.RUNNING


def test_one_helper_lives_with_the_machine(driver: VirtualBox) -> None:
    until("helpers of earlier lives end", 60, lambda: len(helpers(driver)) == 1)
    [process] = helpers(driver)
    process.kill()
    process.wait(10)
    until("a helper in the place of the killed one", 60, lambda: driver.state() and helpers(driver))
    assert process not in helpers(driver)


def test_stop_by_the_power_button(rig: Rig, driver: VirtualBox) -> None:
    began = time.monotonic()
    shutdown.await_off(driver, timeout=WAKE)
    print(f"off: {time.monotonic() - began:.1f} s")
    assert word(rig, driver) == "poweroff"
    assert b"POWERBTN" in driver.folder.console.read_bytes()


def test_a_machine_whose_process_died_can_be_started(rig: Rig, driver: VirtualBox) -> None:
    driver.start()
    # Its saved memory must be used up when it has gone on from there: it is older than the disk then.
    driver.suspend()
    # The process of the run before may take a moment to end.
    before = [one for one in rig.processes() if one.name() == "VBoxHeadless"]
    driver.start()
    [process] = [one for one in rig.processes() if one.name() == "VBoxHeadless" and one not in before]
    process.kill()

    def noticed() -> bool:
        # Until VirtualBox has noticed, it may ask the process that is gone, and fail.
        with contextlib.suppress(subprocess.CalledProcessError):
            return word(rig, driver) == "aborted"
        return False

    until("VirtualBox notices", 60, noticed)
    assert driver.state() is State.STOPPED
    driver.start()
    assert driver.state() is State.RUNNING
    assert "udp-5353" not in rules(rig, driver)
    assert (driver.folder / "console.log.1").exists()


def test_remove_of_a_running_machine_leaves_nothing(rig: Rig, driver: VirtualBox) -> None:
    last = helpers(driver)
    driver.remove()
    assert rig.leftovers() == []
    assert not (driver.folder / "disk.vdi").exists()
    assert not [path for path in driver.folder.path.rglob("*.vbox*") if path.exists()]
    until("the helper ends", 60, lambda: all(not one.is_running() or _is_dead(one) for one in last))
    until("no process is left", 30, lambda: all(one.name() != "VBoxHeadless" for one in rig.processes()))


ASKED = (
    "--driver",
    "virtualbox",
    "--virtualbox-no-vtx-check",
    "--virtualbox-no-share",
    "--image",
    "tiny",
    "--cpus",
    "1",
)
SIZE = ("--memory", "256", "--disk", "2000")


def test_a_create_that_times_out_leaves_nothing(rig: Rig, driver: VirtualBox) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "machine", "create", *ASKED, *SIZE, "--timeout", "1", "late"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "timed out after 1 s waiting for Docker to answer" in done.stderr
    assert "VirtualBox says: running" in done.stderr
    assert rig.leftovers() == []
    assert not store.folder_of("late").path.exists()


def test_what_a_killed_create_leaves_is_cleared_by_the_next_command(rig: Rig, driver: VirtualBox) -> None:
    command = [sys.executable, "-m", "machine", "create", *ASKED, *SIZE, "killed"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        until("it starts", 60, lambda: any(one.name() == "VBoxHeadless" for one in rig.processes()))
        process.kill()
    assert rig.leftovers() != []
    done = subprocess.run(
        [sys.executable, "-m", "machine", "ls"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'Removed what an interrupted "machine create killed" had left behind.' in done.stderr
    assert rig.leftovers() == []
    assert not store.folder_of("killed").path.exists()


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

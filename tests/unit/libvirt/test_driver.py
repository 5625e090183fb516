"""The driver against libvirt's own test hypervisor."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from machine.drivers.libvirt import Libvirt, events, hypervisor
from machine.drivers.libvirt.place import Place

from machine.driver import Address, Autostart, Resize, Snapshots, State, Suspend
from machine.errors import CheckFailed, DriverFailed, NoSuchImage, ToolMissing
from machine.folders import over_ssh
from machine.paths import MachineFolder
from machine.run import run
from tests.unit.libvirt.conftest import MAC, UUID, changed, machine, refusal


def made(driver: Libvirt) -> Libvirt:
    driver.create()
    return driver


def volumes(driver: Libvirt) -> set[str]:
    pool = driver.place.pool.find()
    return {volume.name() for volume in pool.listAllVolumes()}


def own(driver: Libvirt) -> set[str]:
    return {name.removeprefix(f"machine-{UUID}-") for name in volumes(driver) if UUID in name}


def test_create(driver: Libvirt, uploads: list[str]) -> None:
    driver.create()
    assert driver.state() is State.STOPPED
    assert driver.address() == Address("192.168.122.2")
    assert own(driver) == {"disk.qcow2", "seed.iso"}
    digest = driver.machine.image
    assert uploads == [f"machineos-{digest}-{what}" for what in ("image", "kernel", "initrd")]
    assert {f"{name}.complete" for name in uploads} <= volumes(driver)
    domain = driver.place.find()
    assert domain.name() == "machine-dev"
    xml = domain.XMLDesc()
    assert f"<mac address='{MAC}'/>" in xml
    assert "<cmdline>quiet</cmdline>" in xml


def test_create_twice_changes_nothing(driver: Libvirt, uploads: list[str]) -> None:
    made(driver).create()
    assert len(uploads) == 3
    assert len(driver.connection.raw.listAllDomains()) == 2  # and theirs


def test_a_machine_of_the_same_name_in_another_store(driver: Libvirt) -> None:
    other = changed(driver, uuid=UUID.replace("8", "7"), mac="52:54:00:00:00:01")
    made(other)
    made(driver)
    assert {other.place.find().name(), driver.place.find().name()} == {"machine-dev", f"machine-dev-{UUID[:8]}"}


def test_an_image_that_is_not_in_the_cache(driver: Libvirt) -> None:
    driver = changed(driver, image="beef")
    with pytest.raises(NoSuchImage):
        driver.create()
    driver.remove()
    assert own(driver) == set()


def test_life(driver: Libvirt, uploads: list[str]) -> None:
    made(driver).start()
    assert uploads[-1] == driver.place.volume("seed.iso")
    assert driver.state() is State.RUNNING
    driver.place.find().suspend()
    assert driver.state() is State.PAUSED
    driver.start()
    assert driver.state() is State.RUNNING
    driver.place.find().suspend()
    driver.stop()
    assert driver.state() is State.STOPPED
    driver.start()
    driver.kill()
    assert driver.state() is State.STOPPED
    driver.kill()


def test_a_start_keeps_the_console_of_the_run_before(driver: Libvirt) -> None:
    made(driver).start()
    driver.folder.console.write_text("first")
    driver.kill()
    driver.start()
    assert driver.folder.console.with_suffix(".log.1").read_text() == "first"
    assert driver.folder.console.read_text() == ""


def test_a_start_brings_the_domain_in_line(driver: Libvirt) -> None:
    made(driver)
    theirs = driver.place.find().XMLDesc().replace("<title>dev", "<title>my dev")
    driver.connection.raw.defineXML(theirs)
    driver.start()
    assert "<title>my dev" in driver.place.find().XMLDesc(), "what the user changed stays"
    driver.kill()
    driver = changed(driver, memory_mib=2048)
    driver.start()
    assert driver.place.find().maxMemory() == 2048 << 10
    assert driver.place.find().name() == "machine-dev"


def test_other_sizes(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt
    import libvirt_qemu

    assert isinstance(cast(object, driver), Resize)
    done: list[object] = []
    monkeypatch.setattr(libvirt.virStorageVol, "resize", lambda volume, size: done.append((volume.name(), size)))
    monkeypatch.setattr(libvirt.virDomain, "blockResize", lambda domain, *words: done.append(words))
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", lambda domain, command, *_: done.append(command))
    made(driver)
    larger = dataclasses.replace(driver.machine, memory_mib=2048, cpus=4, disk_mib=8192)
    assert driver.resize(larger) == []
    assert done == [(driver.place.volume("disk.qcow2"), 8192 << 20)]
    driver.start()
    assert driver.resize(larger) == ["memory_mib", "cpus"]
    assert done[1] == ("vdb", 8192 << 20, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    assert "machineos-grow" in str(done[2])


def test_a_change_ends_a_pause(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    made(driver).start()
    shared = driver.connection.raw  # each connection to the test hypervisor has machines of its own
    monkeypatch.setattr(libvirt, "open", lambda uri: shared)
    killer = threading.Timer(0.1, driver.kill)
    killer.start()
    began = time.monotonic()
    driver.pause(600)
    assert time.monotonic() - began < 120
    killer.join()
    assert driver.state() is State.STOPPED


def test_one_thread_takes_the_events_of_all_machines(needs_libvirt: None) -> None:
    """libvirt allows no more, and `machine start a b c` waits for three."""
    for _ in range(3):
        events.run_loop()
    assert [thread.name for thread in threading.enumerate()].count(events.LOOP) == 1


def test_a_pause_without_events(driver: Libvirt) -> None:
    driver.pause(0.01)


def test_suspend(driver: Libvirt, uploads: list[str]) -> None:
    assert isinstance(cast(object, driver), Suspend)
    made(driver).start()
    driver.suspend()
    assert driver.state() is State.SAVED
    with pytest.raises(DriverFailed, match="is suspended") as refused:
        driver.stop()
    assert "machine resume dev" in refused.value.hint
    written = len(uploads)
    driver.start()
    assert driver.state() is State.RUNNING
    assert len(uploads) == written, "a guest that goes on has read its seed"
    driver.suspend()
    driver.kill()
    assert driver.state() is State.STOPPED
    with pytest.raises(DriverFailed, match="can't be suspended"):
        driver.suspend()


def keeps_state(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A libvirt that couldn't remove the state when the guest went on; what happens to that and to the guest."""
    import libvirt

    done: list[str] = []

    def removed(domain: object, flags: int = 0) -> None:
        done.append("state removed")
        monkeypatch.setattr(libvirt.virDomain, "hasManagedSaveImage", lambda domain, flags=0: 0)

    resume = libvirt.virDomain.resume
    monkeypatch.setattr(libvirt.virDomain, "hasManagedSaveImage", lambda domain, flags=0: 1)
    monkeypatch.setattr(libvirt.virDomain, "managedSaveRemove", removed)
    monkeypatch.setattr(libvirt.virDomain, "resume", lambda domain: (done.append("guest runs"), resume(domain))[1])
    return done


def test_no_state_is_left_when_the_guest_goes_on(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not made(driver).start()
    driver.suspend()
    done = keeps_state(driver, monkeypatch)
    assert driver.start()
    assert done == ["state removed", "guest runs"]
    assert driver.state() is State.RUNNING


def test_a_start_that_was_killed_before_the_guest_went_on(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    made(driver).start()
    driver.place.find().suspend()
    done = keeps_state(driver, monkeypatch)
    driver.start()
    assert done == ["state removed", "guest runs"]


@pytest.mark.parametrize("verb", ["state", "stop"])
def test_a_state_that_libvirt_left_of_a_guest_that_runs_goes(
    driver: Libvirt, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Otherwise it counts as suspended when it is off, and would be started with that memory."""
    made(driver).start()
    done = keeps_state(driver, monkeypatch)
    getattr(driver, verb)()
    assert done == ["state removed"]
    driver.kill()
    assert driver.state() is State.STOPPED


def test_a_suspend_while_the_state_is_looked_up_keeps_its_memory(
    driver: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(driver).start()
    look = hypervisor.state

    def look_and_wait(domain: Any) -> State:
        found: State = look(domain)
        if found is State.RUNNING:
            driver.suspend()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(hypervisor, "state", look_and_wait)
        driver.state()
    assert driver.state() is State.SAVED


def test_snapshots(driver: Libvirt) -> None:
    assert isinstance(cast(object, driver), Snapshots)
    made(driver)
    driver.snapshot("off")
    driver.start()
    driver.snapshot("on")
    assert [(one.name, one.running) for one in driver.snapshots()] == [("off", False), ("on", True)]
    with pytest.raises(DriverFailed, match='the snapshot "on" already exists'):
        driver.snapshot("on")
    driver.restore("off")
    assert driver.state() is State.STOPPED
    driver.restore("on")
    assert driver.state() is State.RUNNING
    driver.forget("off")
    for refused in (driver.forget, driver.restore):
        with pytest.raises(DriverFailed, match='no snapshot "off"'):
            refused("off")


def test_a_start_after_going_back_brings_the_domain_in_line(driver: Libvirt) -> None:
    made(driver).snapshot("small")
    driver = changed(driver, memory_mib=2048)
    driver.start()
    driver.kill()
    driver.restore("small")
    assert driver.place.find().maxMemory() == 1024 << 10
    driver.start()
    assert driver.place.find().maxMemory() == 2048 << 10


def test_autostart(driver: Libvirt) -> None:
    assert isinstance(driver, Autostart)
    assert not made(driver).autostart()
    driver.set_autostart(True)
    assert driver.autostart()


@pytest.mark.parametrize("state", ["stopped", "running", "saved", "with snapshots", "undefined behind our back"])
def test_remove_leaves_nothing(driver: Libvirt, state: str) -> None:
    made(driver)
    if state != "stopped":
        driver.start()
    if state == "saved":
        driver.suspend()
    if state == "with snapshots":
        driver.snapshot("one")
    if state.startswith("undefined"):
        driver.place.find().destroy()
        driver.place.find().undefine()
    driver.remove()
    assert driver.place.find() is None
    assert own(driver) == set()
    assert MAC not in driver.place.network.find().XMLDesc()
    driver.remove()


def test_a_domain_that_was_undefined_behind_our_back(driver: Libvirt) -> None:
    made(driver).place.find().undefine()
    for call in (driver.state, driver.start, driver.stop, driver.kill, driver.snapshots):
        with pytest.raises(DriverFailed, match="is no longer defined on test:") as refused:
            call()
        assert "machine rm dev" in refused.value.hint
    assert "no longer defined" in driver.diagnosis()


def test_a_domain_that_was_renamed(driver: Libvirt) -> None:
    made(driver).place.find().rename("other")
    assert driver.state() is State.STOPPED
    driver.remove()
    assert driver.place.find() is None


def test_a_damaged_machine_is_removed_by_its_mark(driver: Libvirt) -> None:
    made(driver).start()
    changed(driver, uuid="", mac="").remove()
    assert driver.place.find() is None
    assert own(driver) == set()
    assert MAC not in driver.place.network.find().XMLDesc()
    assert [domain.name() for domain in driver.connection.raw.listAllDomains()] == ["theirs"]


def test_a_damaged_machine_where_there_is_no_libvirtd(driver: Libvirt) -> None:
    options = {"uri": "qemu+unix:///system?socket=/nonexistent"}
    changed(driver, uuid="", mac="", options=options).remove()


def test_an_inactive_network_and_pool_are_started(driver: Libvirt) -> None:
    made(driver)
    driver.place.network.find().destroy()
    driver.place.pool.find().destroy()
    driver.start()
    assert driver.place.network.find().isActive()
    assert driver.place.pool.find().isActive()


def test_a_pool_that_the_user_of_qemu_doesnt_reach(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own folders, in a session of root's."""
    import libvirt

    def refuse(domain: object) -> None:
        raise refusal("Cannot access storage file '/root/disk' (as uid:64055, gid:64055): Permission denied")

    made(driver)
    monkeypatch.setattr(libvirt.virDomain, "create", refuse)
    with pytest.raises(DriverFailed, match="Permission denied") as refused:
        driver.start()
    assert "qemu:///system" in refused.value.hint


def test_check(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver.check() == ["a note"]
    monkeypatch.setattr(type(driver.place.pool), "free_mib", lambda pool: 3)
    with pytest.raises(CheckFailed, match="only 3 MiB are free in the storage pool disks") as refused:
        driver.check()
    assert "--libvirt-pool" in refused.value.hint


def test_another_hosts_memory_is_asked_there(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    assert driver.is_local()
    monkeypatch.setattr(driver.place.uri, "host", "server")
    assert not driver.is_local()
    driver = changed(driver, memory_mib=1 << 20)
    with pytest.raises(CheckFailed, match=r"1024 GiB of memory, but server has"):
        driver.check()


def test_warnings_and_diagnosis(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    made(driver).start()
    assert driver.warnings() == []
    assert driver.diagnosis() == "libvirt says: running\nlease on the network lan: none"
    lease = {"ipaddr": "192.168.122.9", "expirytime": 1}
    import libvirt

    monkeypatch.setattr(libvirt.virNetwork, "DHCPLeases", lambda network, *_: [lease])
    [warning] = driver.warnings()
    assert "192.168.122.9" in warning
    containers = [{"Ports": [{"IP": "127.0.0.1", "PublicPort": 80, "Type": "tcp"}]}]
    monkeypatch.setattr("machine.docker.api.Client.containers", lambda client: containers)
    assert driver.warnings() == ["port 80/tcp is published inside of the machine only, on 127.0.0.1", warning]
    monkeypatch.setattr(Place, "on_loopback", True)
    (driver.folder / "ports.json").write_text('["80/tcp"]')
    assert "port 80/tcp isn't forwarded" in driver.warnings()[0]


def test_no_address_yet(driver: Libvirt) -> None:
    with pytest.raises(DriverFailed, match="has no address yet"):
        driver.address()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("qemu:///system", False),
        ("qemu:///session", True),
        ("qemu+ssh://me@host/system", True),
        ("qemu+tls://host/system", False),
    ],
)
def test_which_machines_are_reached_on_loopback(uri: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)  # to tell that takes no libvirt-python
    driver = Libvirt(machine(options={"uri": uri}), MachineFolder(Path("/store/machines/dev")), run)
    assert driver.on_loopback() is expected
    assert driver.is_local() is ("host" not in uri)


@pytest.mark.parametrize(
    ("uri", "uid", "lowest"),
    [
        ("qemu:///session", 0, 1024),
        ("qemu:///session", 1000, 0),
        ("qemu:///system", 0, 0),
        ("qemu+ssh://me@host/system", 0, 0),
    ],
)
def test_ports_are_chosen_for_the_user_that_runs_qemu(
    monkeypatch: pytest.MonkeyPatch, uri: str, uid: int, lowest: int
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setattr("machine.docker.ports.first_unprivileged", lambda: 1024)
    driver = Libvirt(machine(options={"uri": uri}), MachineFolder(Path("/store/machines/dev")), run)
    assert driver.lowest_port() == lowest


def test_a_port_that_qemu_cant_open_is_named(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    def refuse(domain: object) -> None:
        raise refusal("process exited: Could not set up host forwarding rule 'tcp:127.77.0.2:22-:22'")

    made(driver)
    monkeypatch.setattr(libvirt.virDomain, "create", refuse)
    monkeypatch.setattr("machine.docker.ports.why_not", lambda *_: "")
    with pytest.raises(DriverFailed, match="can't be started: process exited"):
        driver.start()
    monkeypatch.setattr(Place, "on_loopback", True)
    driver = changed(driver, address=Address("127.77.0.2"))
    with pytest.raises(
        DriverFailed, match="port 22, for SSH, can't be opened: the user that runs QEMU may not open it"
    ):
        driver.start()


def test_a_session_on_another_host(driver: Libvirt) -> None:
    driver = changed(driver, options={"uri": "qemu+ssh://host/session"})
    with pytest.raises(CheckFailed, match="can't be reached"):
        driver.check()


def test_a_path_that_is_too_long_for_a_tunnel(driver: Libvirt, tmp_path: Path) -> None:
    driver = changed(driver, options={"uri": "qemu+ssh://host/system"})
    driver.folder.path = tmp_path / ("x" * 100)
    with pytest.raises(CheckFailed, match="too long for a socket"):
        driver.check()


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("qemu+unix:///system?socket=/nonexistent", "apt install libvirt-daemon-system"),
        ("qemu+unix:///session?socket=/nonexistent", "libvirtd -d"),
        ("qemu+tcp://127.0.0.1:1/system", "virsh -c"),
    ],
)
def test_no_libvirtd(driver: Libvirt, uri: str, hint: str) -> None:
    driver = changed(driver, options={"uri": uri})
    with pytest.raises(CheckFailed) as refused:
        driver.check()
    assert hint in refused.value.hint
    assert refused.value.exit_code == 3


def test_without_libvirt_python(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    for call in (
        *(driver.check, driver.architecture, driver.create, driver.remove, driver.state),
        *(driver.start, driver.stop, driver.kill, driver.suspend, driver.snapshots, driver.autostart),
    ):
        with pytest.raises(ToolMissing, match="libvirt-python was not found") as refused:
            call()
        assert "pip install 'machine-vm[libvirt]'" in refused.value.hint
        assert refused.value.exit_code == 3


def test_a_connection_that_was_lost_is_made_again(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    made(driver)
    first, opened = driver.connection.raw, []
    monkeypatch.setattr(libvirt, "open", lambda uri: opened.append(uri) or first)
    monkeypatch.setattr(libvirt.virConnect, "isAlive", lambda connection: 0)
    assert driver.state() is State.STOPPED
    assert opened


def test_the_hypervisor_must_be_qemu(uri: str, driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(CheckFailed, match="is TEST, not QEMU"):
        hypervisor.choose("auto", driver.connection, driver.folder, driver.run)


def test_a_libvirt_without_passt_gets_qemus_own_network(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    defined: list[str] = []

    def define(connection: object, xml: str) -> None:
        if 'type="passt"' in xml:
            raise refusal("XML error: Invalid value for attribute 'type': 'passt'", libvirt.VIR_ERR_XML_ERROR)
        defined.append(xml)

    monkeypatch.setattr(libvirt.virConnect, "defineXML", define)
    monkeypatch.setattr(driver.place.uri, "is_session", True)
    monkeypatch.setattr("machine.drivers.libvirt.definition.which", lambda tool: f"/usr/bin/{tool}")
    driver = changed(driver, address=Address("127.77.0.2", 2375, 2222))
    driver.create()
    [xml] = defined
    assert "hostfwd=tcp:127.77.0.2:2375-:2375,hostfwd=tcp:127.77.0.2:2222-:22" in xml
    options = {**driver.machine.options, "user_network": "passt"}
    driver = changed(driver, options=options)
    with pytest.raises(DriverFailed, match="passt"):
        driver.create()


def test_shared_folders_are_mounted_by_the_helper(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    """So also a machine that has an address on a network, and ports there, has one."""
    begun: list[MachineFolder] = []
    monkeypatch.setattr("machine.helper.begin", lambda folder, module: begun.append(folder))
    driver.create()
    sharing = changed(driver, mounts=("/home/ann", "/srv:/data:ro"))
    note = driver.folder / over_ssh.NOTE
    note.write_text('{"mounted": ["/home/ann", "/data"], "failed": {}}')
    sharing.start()
    assert begun == [driver.folder]
    assert list(sharing.unmounted()) == ["/home/ann", "/data"]
    note.write_text('{"mounted": ["/home/ann"], "failed": {"/data": "no NFS client"}}')
    assert sharing.unmounted() == {"/data": "no NFS client"}
    assert [(mount.source, mount.type) for mount in sharing.mounts()] == [
        ("127.0.0.1:/data", "relayed"),
        ("127.0.0.1:/home/ann", "relayed"),
    ]
    assert (driver.mounts(), driver.unmounted()) == ((), {})


def test_the_home_folder_goes_to_another_computer_only_when_asked_for(driver: Libvirt) -> None:
    assert driver.shares_home()
    assert not changed(driver, options={"uri": "qemu+ssh://ann@server/system"}).shares_home()

"""Domains in libvirt that belong to no machine of the store, with libvirt's own test hypervisor."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import sys
from pathlib import Path

import pytest
import spellings
from machine.drivers.libvirt import Libvirt, domains, orphans
from machine.drivers.libvirt.connection import Connection

from machine import spec
from machine.driver import Orphan
from machine.errors import MachineError
from machine.paths import MachineFolder
from machine.run import run
from tests.unit.libvirt.conftest import MAC, UUID, changed, machine

OTHER = UUID.replace("8", "7")


@pytest.fixture
def made(driver: Libvirt, monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    """A machine that is made; each connection is this one, because another would have a hypervisor of its own."""
    driver.create()
    raw = driver.connection.raw
    monkeypatch.setattr(Connection, "raw", raw)
    monkeypatch.setattr(orphans, "SOCKETS", ())
    return driver


def find(made: Libvirt, *uuids: str) -> list[Orphan]:
    """With machines of these UUIDs in the store; there is one at least, whose URI is the one to look at."""
    known = [machine(uuid=uuid, options=made.machine.options) for uuid in (OTHER, *uuids)]
    found: list[Orphan] = Libvirt.orphans(made.folder.store, known, made.run)
    return found


def left(made: Libvirt) -> list[str]:
    pool = made.place.pool.find()
    volumes = [volume.name() for volume in pool.listAllVolumes() if volume.name().startswith("machine-")]
    return [*(there.name() for there in made.connection.raw.listAllDomains()), *volumes]


def test_a_domain_with_our_mark(made: Libvirt) -> None:
    assert find(made, UUID) == []
    (one,) = find(made)
    uri = made.place.uri
    assert (one.name, one.uuid, one.what) == ("dev", UUID, f"the domain machine-dev on {uri}")
    assert one.remove
    assert MAC in made.place.network.find().XMLDesc()
    one.remove()
    assert left(made) == ["theirs"]
    assert MAC not in made.place.network.find().XMLDesc()
    assert find(made) == []


def test_another_stores_domain_stays(made: Libvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [machine(uuid=OTHER, options=made.machine.options)]
    assert Libvirt.orphans(tmp_path / "elsewhere", known, made.run) == []
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert find(made) == [], "a store on another host has the same path"


def test_a_clone_of_the_users_stays(made: Libvirt) -> None:
    """As virt-clone makes it: another name, UUID, MAC and disk, and the metadata of its original."""
    uuid = OTHER.replace("c", "d")
    xml = made.place.find().XMLDesc().replace("machine-dev<", "clone<").replace(f"{UUID}</uuid>", f"{uuid}</uuid>")
    made.connection.raw.defineXML(xml.replace("disk.qcow2", "disk-clone.qcow2").replace(MAC, "52:54:00:00:00:09"))
    assert len(made.connection.raw.listAllDomains()) == 3
    assert [one.uuid for one in find(made)] == [UUID]
    assert [domain.UUIDString() for domain in domains.ours(made.connection, made.folder)] == [UUID]


def test_volumes_without_a_domain_are_only_told(made: Libvirt) -> None:
    made.place.find().undefine()
    (one,) = find(made)
    names = sorted([made.place.volume("disk.qcow2"), made.place.volume("seed.iso")])
    assert (one.uuid, one.remove) == (UUID, None)
    delete = f"virsh -c {made.place.uri} vol-delete --pool disks"
    assert one.hint == "if no other store has that machine: " + " && ".join(f"{delete} {name}" for name in names)
    assert find(made, UUID) == [], "rm clears them"


def test_where_is_looked(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    listens = tmp_path / "socket"
    monkeypatch.setattr(orphans, "SOCKETS", (listens,))
    assert orphans._uris([]) == []
    listens.touch()
    assert orphans._uris([]) == ["qemu:///system"]
    definitions = tmp_path / "libvirt" / "qemu"
    definitions.mkdir(parents=True)
    (definitions / "theirs.xml").write_text("<domain/>")
    assert orphans._uris([]) == ["qemu:///system"]
    (definitions / "machine-dev.xml").write_text(f"<domain xmlns:m='{domains.NAMESPACE}'/>")
    used = [machine(options={"uri": "qemu+ssh://a@b/system"}), machine(), dataclasses.replace(machine(), driver="qemu")]
    assert orphans._uris(used) == ["qemu+ssh://a@b/system", "qemu:///system", "qemu:///session"]


def test_a_libvirtd_that_doesnt_answer_hides_no_other(made: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = ["test:///no/such/file.xml", str(made.place.uri)]
    raw = made.connection.raw
    monkeypatch.setattr(Connection, "raw", property(lambda self: self._open() if "no/such" in str(self.uri) else raw))
    known = [machine(uuid=OTHER, options={"uri": uri}) for uri in uris]
    assert [one.name for one in Libvirt.orphans(made.folder.store, known, made.run)] == ["dev"]


def test_without_libvirt_python(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    assert Libvirt.orphans(store, [machine()], run) == []


@pytest.mark.parametrize("spelling", spellings.ALL)
def test_the_store_by_another_way(made: Libvirt, spelling: spellings.Spell) -> None:
    store = Path(spelling(made.folder.store))
    known = [machine(uuid=OTHER, options=made.machine.options)]
    assert [one.name for one in Libvirt.orphans(store, known, made.run)] == ["dev"]
    other = MachineFolder(store / "machines" / "dev")
    assert [domain.UUIDString() for domain in domains.ours(made.connection, other)] == [UUID]
    definition = (made.folder / "domain.xml").read_text()
    by_another_way = changed(made, other)
    by_another_way.start()
    assert (made.folder / "domain.xml").read_text() == definition, "what the user changed would be lost"
    by_another_way.remove()
    assert left(made) == ["theirs"]


def test_a_copy_of_the_store_doesnt_remove_or_change_it(made: Libvirt, tmp_path: Path) -> None:
    """libvirt has one domain of that UUID, and two folders say that it is theirs."""
    made.folder.config.write_text(spec.dumps(made.machine))
    copy = MachineFolder(tmp_path / "copy" / "machines" / "dev")
    shutil.copytree(made.folder.path, copy.path)
    theirs = changed(made, copy)
    for act in (
        *(theirs.remove, theirs.start, theirs.stop, theirs.kill, theirs.suspend),
        *(lambda: theirs.snapshot("s"), lambda: theirs.restore("s"), lambda: theirs.forget("s")),
        *(lambda: theirs.resize(made.machine), lambda: theirs.set_autostart(True)),
    ):
        with pytest.raises(MachineError, match=f"belongs to {made.folder.path}, and this folder is a copy") as caught:
            act()
        assert caught.value.hint == "remove the copy alone: machine rm -f dev"
    assert "machine-dev" in left(made)
    shutil.rmtree(made.folder.store)  # the copy is what is left, as after a move
    theirs.remove()
    assert left(made) == ["theirs"]

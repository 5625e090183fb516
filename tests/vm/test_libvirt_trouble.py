"""What happens behind our back in libvirt: the reason is said, nothing is lost, and `rm` still clears up.

No machine boots here to its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.testbed.places import LibvirtPlace, libvirt_system

# What `machine create` does up to where it would start the machine.
MAKE = """
import sys
from machine import lifecycle, store
from machine.images import cache
from machine.create import draft
from machine.instance import Instance
asked = draft(sys.argv[1], "libvirt", cache.current("machineos").digest, memory_mib=512, cpus=1, disk_mib=2048)
undo = lambda machine, home: lifecycle.undo(Instance(machine, home))
with store.reserve(asked.name, lambda others: asked, undo) as (machine, home):
    Instance(machine, home).driver.create()
"""


@pytest.fixture(scope="module")
def place(images: Path) -> Iterator[LibvirtPlace]:
    with libvirt_system(images) as place:
        yield place


@pytest.fixture
def domain(place: LibvirtPlace) -> str:
    """A machine that was never started."""
    place.execute(sys.executable, "-c", MAKE, "dev")
    assert place.machine("status", "dev").out == "Stopped\n"
    return "machine-dev"


def gone(place: LibvirtPlace) -> bool:
    place.assert_nothing_left()
    return place.left_outside() == []


def test_three_at_once_where_there_is_nothing_yet(place: LibvirtPlace) -> None:
    """Each needs the network, the pool and the image, which somebody has to make first."""
    names = ("one", "two", "three")
    argv = [*place.enter, sys.executable, "-c", MAKE]
    with contextlib.ExitStack() as stack:
        for process in [stack.enter_context(subprocess.Popen([*argv, name], env=place.env)) for name in names]:
            assert process.wait(120) == 0
    listed = [line.split() for line in place.machine("ls").lines[1:]]
    assert sorted(line[0] for line in listed) == sorted(names)
    assert len({place.machine("ip", name).out for name in names}) == 3
    place.machine("rm", "-y", *names)
    assert gone(place)


def test_a_domain_that_was_undefined(place: LibvirtPlace, domain: str) -> None:
    place.virsh("undefine", domain)
    for verb in ("status", "start", "stop", "kill"):
        refused = place.machine(verb, "dev", code=1)
        assert 'the domain of the machine "dev" is no longer defined on qemu:///system' in refused.err
        assert "Next: machine rm dev" in refused.err
    assert "no longer defined" in place.machine("ls").out
    assert "192.168." in place.machine("env", "--shell", "bash", "dev").out
    place.machine("rm", "-y", "dev")
    assert gone(place)


def test_a_domain_that_was_renamed(place: LibvirtPlace, domain: str) -> None:
    place.virsh("domrename", domain, "another")
    assert place.machine("status", "dev").out == "Stopped\n"
    place.machine("rm", "-y", "dev")
    assert gone(place)


def test_a_damaged_machine(place: LibvirtPlace, domain: str) -> None:
    place.folder_of("dev").joinpath("machine.json").write_text("{")
    assert "is damaged" in place.machine("status", "dev", code=1).err
    place.machine("rm", "-f", "dev")
    assert gone(place)


def orphans(place: LibvirtPlace, *words: str, store: Path | None = None) -> list[dict[str, object]]:
    """What doctor says of domains and volumes that are left."""
    way = ("-s", str(store)) if store else ()
    said = json.loads(place.machine(*way, "doctor", "--json", *words, code=None).out)
    return [one for one in said if one["check"] == "orphans" and one["level"] != "ok"]


@pytest.mark.parametrize("what", ["its record", "its folder"])
def test_doctor_finds_and_clears_a_domain_without_a_machine(
    place: LibvirtPlace, domain: str, what: str, tmp_path: Path
) -> None:
    """By another way to the store, too."""
    link = tmp_path / "link"
    link.symlink_to(place.folder_of("dev").parents[1])
    assert orphans(place) == orphans(place, store=link) == []
    if what == "its record":
        place.folder_of("dev").joinpath("machine.json").unlink()
    else:
        shutil.rmtree(place.folder_of("dev"))
    (found,) = orphans(place)
    text = f"libvirt: the domain {domain} on qemu:///system: no machine in the store uses it"
    assert (found["text"], found["hint"]) == (text, "machine doctor --repair")
    (found,) = orphans(place, "--repair", store=link)
    assert found["repaired"]
    assert gone(place)
    assert orphans(place) == []


def test_a_copy_of_the_store_leaves_the_domain_alone(place: LibvirtPlace, domain: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(place.folder_of("dev").parents[1], copy, ignore=shutil.ignore_patterns("libvirt*", "*.sock"))
    said = place.machine("-s", str(copy), "rm", "-y", "dev", code=1).err
    assert f"belongs to {place.folder_of('dev')}, and this folder is a copy of that one" in said
    place.machine("-s", str(copy), "rm", "-f", "dev")
    assert not (copy / "machines" / "dev").exists()
    assert place.machine("status", "dev").out == "Stopped\n"
    place.machine("rm", "-y", "dev")
    assert gone(place)


def test_doctor_tells_volumes_without_a_domain(place: LibvirtPlace, domain: str) -> None:
    place.virsh("undefine", domain)
    assert orphans(place) == [], "machine rm clears them"
    shutil.rmtree(place.folder_of("dev"))
    (found,) = orphans(place, "--repair")
    assert (found["level"], found["repaired"]) == ("warning", False)
    place.execute("sh", "-c", str(found["hint"]).partition(": ")[2])
    assert orphans(place) == []
    reservations = [line for line in place.left_outside() if "<host " in line]
    assert place.left_outside() == reservations
    for line in reservations:
        place.virsh("net-update", "machine", "delete", "ip-dhcp-host", line, "--live", "--config")


def test_others_domains_stay(place: LibvirtPlace, domain: str) -> None:
    xml = "<domain type='qemu'><name>theirs</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    place.folder_of("dev").joinpath("theirs.xml").write_text(xml)
    place.virsh("define", str(place.folder_of("dev") / "theirs.xml"))
    place.folder_of("dev").joinpath("machine.json").write_text("{")
    place.machine("rm", "-f", "dev")
    assert place.left_outside() == ["theirs"]
    place.virsh("undefine", "theirs")


def test_an_inactive_network_is_started(place: LibvirtPlace, domain: str) -> None:
    place.virsh("net-destroy", "machine")
    place.virsh("pool-destroy", "machine")
    ended = place.machine("start", "--timeout", "1", "dev", code=1)
    assert "timed out after 1 s waiting for Docker" in ended.err
    assert "libvirt says: running" in ended.err
    assert place.machine("status", "dev").out == "Running\n"
    place.machine("rm", "-y", "dev")
    assert gone(place)


def test_a_pool_without_room(place: LibvirtPlace) -> None:
    folder = "/var/lib/libvirt/tiny"
    place.execute("mkdir", folder)
    place.execute("mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder)
    place.virsh("pool-create-as", "tiny", "dir", "--target", folder)
    ended = place.machine("create", "--libvirt-pool", "tiny", "--memory", "512", "dev", code=3)
    assert "MiB are free in the storage pool tiny" in ended.err
    assert "Hint: make room, or choose another: --libvirt-pool NAME" in ended.err
    assert gone(place)


def test_a_killed_create_is_swept(place: LibvirtPlace) -> None:
    with place.begun("create", "--memory", "512", "dev") as create:
        create.says("waiting for Docker")
        os.kill(create.process.pid, signal.SIGKILL)
        create.end()
    assert "machine-dev" in place.left_outside()
    assert "interrupted" in place.machine("ls").err
    assert gone(place)


def test_a_libvirtd_that_ended(place: LibvirtPlace, domain: str) -> None:
    """The last one: nobody starts it again."""
    supervisor = psutil.Process(int(place.enter[1].partition("=")[2]))
    for process in supervisor.children():
        if process.name() == "libvirtd":
            process.kill()
    refused = place.machine("status", "dev", code=3)
    assert "no libvirtd answers on qemu:///system" in refused.err
    assert "systemctl start libvirtd" in refused.err
    assert "no libvirtd" in place.machine("ls").out
    refused = place.machine("rm", "-y", "dev", code=3)
    assert place.machine("ls", "-q").out == "dev\n", "nothing is lost"
    place.machine("rm", "-f", "dev")
    place.assert_nothing_left()

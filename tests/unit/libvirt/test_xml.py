"""The XML that we write is what libvirt's own schemas allow."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from xml.etree import ElementTree

import pytest
from machine.drivers.libvirt import network
from machine.drivers.libvirt.domains import Parts, describe

from machine.paths import MachineFolder
from machine.render import render
from machine.spec import Address
from tests.unit.libvirt.conftest import machine

Validate = Callable[[str, str], None]
PARTS = Parts(
    name="machine-dev",
    type="qemu",
    architecture="x86_64",
    emulator="/usr/bin/qemu-system-x86_64",
    kernel="/pool/kernel",
    initrd="/pool/initrd",
    command_line="console=ttyS0 quiet",
    image="/pool/image",
    disk="/pool/disk.qcow2",
    seed="/pool/seed.iso",
    console="/home/anna & bob/console.log",
    network="machine",
    user_network="",
)


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    tool = shutil.which("virt-xml-validate")
    if tool is None or shutil.which("xmllint") is None:
        pytest.skip("virt-xml-validate or xmllint isn't installed")

    def check(xml: str, schema: str) -> None:
        (tmp_path / "it.xml").write_text(xml)
        done = subprocess.run([tool, tmp_path / "it.xml", schema], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{xml}"

    return check


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "kvm"},
        {"network": "", "user_network": "passt"},
        {"network": "", "user_network": "slirp"},
        {"architecture": "aarch64"},
    ],
    ids=lambda changes: "-".join(changes.values()) or "plain",
)
def test_domain(validate: Validate, changes: dict[str, str], tmp_path: Path) -> None:
    asked = machine(address=Address("127.77.0.2", 2375, 2222))
    xml = describe(asked, MachineFolder(tmp_path / "dev"), dataclasses.replace(PARTS, **changes))
    validate(xml, "domain")
    log = ElementTree.fromstring(xml).find("devices/serial/log")
    assert log is not None
    assert log.attrib["file"] == PARTS.console
    # libvirt refuses ACPI on ARM without UEFI.
    assert ("<acpi/>" in xml) == ("aarch64" not in changes.values())


def test_network(validate: Validate) -> None:
    xml = network._described("machine", IPv4Network("192.168.177.0/24"))
    validate(xml, "network")
    assert str(network.subnet_of(xml)) == "192.168.177.0/24"
    assert next(network.free(xml, ["192.168.177.2"])) == "192.168.177.3"


def test_pool_volume_snapshot(validate: Validate) -> None:
    validate(render("libvirt/pool.xml.j2", name="machine", path="/var/lib/x"), "storagepool")
    for kind in ("raw", "qcow2"):
        xml = render("libvirt/volume.xml.j2", name="disk", size=1 << 30, format=kind)
        validate(xml, "storagevol")
    validate(render("libvirt/snapshot.xml.j2", name="one"), "domainsnapshot")

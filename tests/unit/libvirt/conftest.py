"""libvirt's built-in driver `test`: a hypervisor in this process, without what it lacks (uploads, leases, an agent)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fake_fixtures import add_image
from machine.drivers.libvirt import Libvirt, hypervisor

from machine.paths import MachineFolder
from machine.run import run
from machine.spec import Address, Machine

UUID = "8cb92d34-a6b0-48f1-81a7-1d215a60c752"
MAC = "52:54:00:13:d5:3a"
NODE = """\
<node>
  <network>
    <name>lan</name>
    <forward mode="nat"/>
    <ip address="192.168.122.1" netmask="255.255.255.0">
      <dhcp>
        <range start="192.168.122.2" end="192.168.122.3"/>
      </dhcp>
    </ip>
  </network>
  <pool type="dir">
    <name>disks</name>
    <target>
      <path>/disks</path>
    </target>
  </pool>
  <domain type="test">
    <name>theirs</name>
    <metadata>
      <other:thing xmlns:other="urn:other"/>
    </metadata>
    <memory>65536</memory>
    <os>
      <type>hvm</type>
    </os>
  </domain>
</node>
"""


def machine(**fields: Any) -> Machine:
    asked = {"name": "dev", "driver": "libvirt", "uuid": UUID, "mac": MAC, "image": ""}
    return Machine(**{**asked, "memory_mib": 1024, "cpus": 2, "disk_mib": 4096, **fields})


@pytest.fixture
def needs_libvirt() -> None:
    """libvirt-python is an extra; without it a test is skipped. For every fixture and test that imports it."""
    pytest.importorskip("libvirt", reason="libvirt-python isn't installed: pip install 'machine-vm[libvirt]'")


@pytest.fixture
def uri(needs_libvirt: None, tmp_path: Path) -> str:
    (tmp_path / "node.xml").write_text(NODE)
    return f"test://{tmp_path}/node.xml"


@pytest.fixture
def uploads(needs_libvirt: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the volumes that were written to."""
    import libvirt

    seen: list[str] = []
    monkeypatch.setattr(libvirt.virStorageVol, "upload", lambda volume, *_: seen.append(volume.name()))
    monkeypatch.setattr(libvirt.virStream, "send", lambda stream, block: len(block))
    monkeypatch.setattr(libvirt.virStream, "finish", lambda stream: 0)
    monkeypatch.setattr(libvirt.virStream, "abort", lambda stream: 0)
    return seen


@pytest.fixture
def driver(store: Path, tmp_path: Path, uri: str, uploads: list[str], monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    """The driver of the machine dev, which isn't made yet; its seed is there."""
    import libvirt

    # The flag that it knows nothing of is VIR_DOMAIN_START_PAUSED.
    monkeypatch.setattr(libvirt.virDomain, "createWithFlags", lambda domain, flags: domain.create() or domain.suspend())
    undefine = libvirt.virDomain.undefineFlags
    monkeypatch.setattr(libvirt.virDomain, "undefineFlags", lambda domain, flags: undefine(domain, flags & 3))
    monkeypatch.setattr(libvirt.virDomain, "shutdownFlags", lambda domain, flags: domain.shutdown())
    monkeypatch.setattr(libvirt.virNetwork, "DHCPLeases", lambda network, *_: [])
    chosen = hypervisor.Choice("test", "x86_64", "/usr/bin/qemu-system-x86_64", ["a note"])
    monkeypatch.setattr(hypervisor, "choose", lambda *_: chosen)
    about = add_image(tmp_path, "machineos", b"an operating system")
    folder = MachineFolder(store / "machines/dev")
    folder.path.mkdir(parents=True)
    folder.seed.write_bytes(b"a seed")
    options = {"uri": uri, "network": "lan", "pool": "disks"}
    return Libvirt(machine(image=about.digest, options=options), folder, run)


def changed(driver: Libvirt, folder: MachineFolder | None = None, **fields: Any) -> Libvirt:
    """A driver of the same machine with other fields, or of a copy in another home.

    With the same URI it has the same connection: the hypervisor `test` is another one on each.
    """
    other = Libvirt(dataclasses.replace(driver.machine, **fields), folder or driver.folder, driver.run)
    if other.connection.uri.text == driver.connection.uri.text:
        other.connection = driver.connection
    return other


def refusal(text: str, code: int = 1) -> Exception:
    """An error of libvirt; 1 is VIR_ERR_INTERNAL_ERROR. (It would take the text of the last one in this thread.)"""
    import libvirt

    error: Exception = libvirt.libvirtError(text)
    error.args = (text,)
    vars(error)["err"] = (code, 0, text, 2, None, None, None, -1, -1)
    return error


def on_loopback(**fields: Any) -> Machine:
    return machine(address=Address("127.77.0.2", 2375, 2222), **fields)

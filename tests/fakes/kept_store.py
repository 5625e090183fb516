"""Stores that earlier versions of machine wrote (tests/data/store-*), copied to where a test may use them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"
# Whose store it was, and on which computer: both stand in its files.
HOME, HOST = "/home/ann", "ann-laptop"
FOLDERS = {"machine": ".machine", "docker": ".docker", "ssh": ".ssh"}
# Stand-ins for the programs that know of the machines. Each notes how it was called.
PROGRAMS = {
    "docker": """\
#!/bin/sh
echo "$@" >> "$0.calls"
""",
    "VBoxManage": """\
#!/bin/sh
echo "$@" >> "$0.calls"
case "$1 $2" in
--version*) echo 7.2.4r170995 ;;
"list vms") echo '"box" {{{uuid}}}' ;;
"list --long") printf 'UUID: {uuid}\\nConfig file: {folder}/box/box.vbox\\n' ;;
showvminfo*) printf 'UUID="{uuid}"\\nCfgFile="{folder}/box/box.vbox"\\nmemory=2048\\ncpus=2\\nVMState="poweroff"\\n' ;;
esac
""",
}
# libvirt's test driver has the machine's domain, switched off.
NODE = """\
<node>
  <network>
    <name>lan</name>
    <ip address="192.168.122.1" netmask="255.255.255.0">
      <dhcp>
        <range start="192.168.122.2" end="192.168.122.9"/>
      </dhcp>
    </ip>
  </network>
  <pool type="dir">
    <name>disks</name>
    <target>
      <path>/disks</path>
    </target>
  </pool>
{domain}</node>
"""
OFF = """\
<domain type="test" xmlns:test="http://libvirt.org/schemas/domain/test/1.0">
  <test:runstate>5</test:runstate>"""


def copy(version: str, home: Path, patch: pytest.MonkeyPatch) -> Path:
    """Give the user the home folder with that version's store, and hypervisors that know its machines.

    Returns the store's folder. Names and times are as that version left them, the paths those of the new home.
    """
    for folder, name in FOLDERS.items():
        if (DATA / f"store-{version}" / folder).is_dir():
            _copy(DATA / f"store-{version}" / folder, home / name, home)
    store = home / ".machine"
    for about in store.glob("templates/*/about.json"):
        _date(about)
    for name, value in {"HOME": home, "MACHINE_STORAGE_PATH": store, "DOCKER_CONFIG": home / ".docker"}.items():
        patch.setenv(name, str(value))
    _install(store / "machines" / "box", home / "bin", patch)
    _define(store / "machines" / "far" / "domain.xml", home / "node.xml")
    return store


def _copy(source: Path, target: Path, home: Path) -> None:
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        if path.is_dir():
            _copy(path, target / path.name, home)
            continue
        text = path.read_text(encoding="utf-8").replace(HOME, str(home)).replace(HOST, socket.gethostname())
        (target / path.name).write_text(text, encoding="utf-8")
        (target / path.name).chmod(0o600)


def _date(about: Path) -> None:
    """Give a template's files the times that its checksums hold, which git doesn't keep."""
    for name, mark in json.loads(about.read_text(encoding="utf-8"))["files"].items():
        changed = int(mark.split()[1])
        os.utime(about.with_name(name), ns=(changed, changed))


def _install(box: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins first on PATH; VBoxManage's virtual machine is that of the folder box."""
    uuid = json.loads((box / "machine.json").read_text(encoding="utf-8"))["uuid"]
    folder.mkdir()
    for name, script in PROGRAMS.items():
        (folder / name).write_text(script.format(uuid=uuid, folder=box), encoding="utf-8")
        (folder / name).chmod(0o700)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def _define(defined: Path, node: Path) -> None:
    if defined.exists():
        domain = defined.read_text(encoding="utf-8").replace('<domain type="qemu">', OFF)
        node.write_text(NODE.format(domain=domain), encoding="utf-8")

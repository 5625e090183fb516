"""How VBoxManage writes what it knows of a virtual machine."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from xml.sax.saxutils import quoteattr

import recorded
from vm_state import ON, Vm


def machinereadable(vm: Vm, disks: dict[str, str]) -> str:
    """A new machine's answer as recorded, with this one's values, and its drives, rules and snapshots."""
    values = _values(vm)
    before = {
        "natnet1": _drives(vm, disks),
        "nic2": [f'Forwarding({number})="{rule}"' for number, rule in enumerate(sorted(vm["nat"].values()))],
        "recording_started": _shares(vm),
        "GuestMemoryBalloon": snapshot_fields(vm),
    }
    lines = []
    for recorded_line in recorded.answer("main-showvminfo-fresh-machinereadable").out.splitlines():
        key, equals, old = recorded_line.partition("=")
        lines += before.get(key, [])
        if equals and key in values:
            lines.append(f"{key}={quoted(values[key]) if old.startswith(chr(34)) else values[key]}")
        else:
            lines.append(recorded_line)
        if key == "uart1" and "uartmode1" in values:
            lines.append(f"uartmode1={quoted(values['uartmode1'])}")
    if description := values.get("description"):
        lines.append(f"description={quoted(description)}")
    if vm["state"] in ON:
        lines += ['SessionName="headless"', 'VideoMode="720,400,0"@0,0 1', "GuestAdditionsRunLevel=0"]
    return "\n".join(lines) + "\n"


def _values(vm: Vm) -> dict[str, str]:
    folder = str(Path(vm["config"]).parent)
    return {
        **vm["fields"],
        "name": vm["name"],
        "UUID": vm["uuid"],
        "hardwareuuid": vm["uuid"],
        "CfgFile": vm["config"],
        "SnapFldr": rf"{folder}\Snapshots",
        "LogFldr": rf"{folder}\Logs",
        "VMState": vm["state"],
        "NvramFile": rf"{folder}\{vm['name']}.nvram",
        "rec_screen_dest_filename": rf"{folder}\{vm['name']}-screen0.webm",
    }


def _drives(vm: Vm, disks: dict[str, str]) -> list[str]:
    lines = []
    for number, (name, ports) in enumerate(vm["controllers"]):
        lines += [
            f'storagecontrollername{number}="{name}"',
            f'storagecontrollertype{number}="IntelAhci"',
            f'storagecontrollerinstance{number}="0"',
            f'storagecontrollermaxportcount{number}="30"',
            f'storagecontrollerportcount{number}="{ports}"',
            f'storagecontrollerbootable{number}="on"',
        ]
        for port in range(ports):
            path = vm["media"].get(f"{name}-{port}-0")
            lines.append(f'"{name}-{port}-0"={quoted(path or "none")}')
            if path:
                lines.append(f'"{name}-ImageUUID-{port}-0"="{disks.get(path, uuid5(path))}"')
    return lines


def _shares(vm: Vm) -> list[str]:
    lines = []
    for number, (name, path) in enumerate(vm["shares"].items(), 1):
        lines.append(f'SharedFolderNameMachineMapping{number}="{name}"')
        lines.append(f"SharedFolderPathMachineMapping{number}={quoted(path)}")
    return lines


def snapshot_fields(vm: Vm) -> list[str]:
    lines = []
    for number, entry in enumerate(vm["snapshots"]):
        suffix = "-1" * number
        lines += [f"SnapshotName{suffix}={quoted(entry['name'])}", f'SnapshotUUID{suffix}="{entry["uuid"]}"']
    if vm["snapshots"]:
        lines.append(f'CurrentSnapshotUUID="{vm["current"]}"')
    return lines


def long_entry(vm: Vm) -> str:
    return f"{'Name:':<29}{vm['name']}\n{'UUID:':<29}{vm['uuid']}\n{'Config file:':<29}{vm['config']}\n"


def medium_entry(path: str, key: str, kind: str) -> str:
    lines = {"UUID": key}
    if kind == "disk":
        lines |= {"Parent UUID": "base", "State": "created", "Type": "normal (base)"}
    else:
        lines |= {"State": "created", "Type": "readonly"}
    lines |= {"Location": path, "Storage format": "VDI" if kind == "disk" else "RAW", "Encryption": "disabled"}
    return "".join(f"{name + ':':<16}{value}\n" for name, value in lines.items()) + "\n"


def write_settings(vm: Vm) -> None:
    """The .vbox file, as far as somebody reads it: who it is, and the snapshots."""
    inner = ""
    for entry in reversed(vm["snapshots"]):
        file = ' stateFile="Snapshots\\state.sav"' if entry["running"] else ""
        inner = (
            f'<Snapshot uuid="{{{entry["uuid"]}}}" name={quoteattr(entry["name"])} timeStamp="{entry["time"]}"{file}>'
            + (f"<Snapshots>{inner}</Snapshots>" if inner else "")
            + "</Snapshot>"
        )
    text = (
        '<?xml version="1.0"?>\n<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-windows">\n'
        f'<Machine uuid="{{{vm["uuid"]}}}" name={quoteattr(vm["name"])}>{inner}</Machine>\n</VirtualBox>\n'
    )
    Path(vm["config"]).write_text(text, encoding="utf-8")


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def uuid5(path: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path))


def is_uuid(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(uuid.UUID(text))
    return False


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

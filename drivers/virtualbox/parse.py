"""What VBoxManage prints, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from machine.driver import Snapshot, State

# KEY=VALUE or KEY="VALUE" or "KEY"="VALUE"; newer versions escape " and \ in a value, and a value may have many lines.
_PAIR = re.compile(
    r'^(?:"(?P<quoted>[^"\n]+)"|(?P<key>[^\s"=][^"=\n]*))='
    r'(?:"(?P<text>.*?)(?<!\\)(?P<slashes>(?:\\\\)*)"|(?P<bare>[^"\n]*))$',
    re.MULTILINE | re.DOTALL,
)
_ATTACHED = re.compile(r".+-\d+-\d+")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_REGISTERED = re.compile(r'^"(?P<name>.*)" \{(?P<uuid>[0-9a-f-]{36})\}$', re.MULTILINE)
_NAMESPACE = "{http://www.virtualbox.org/}"

# The names of VBoxManage's machineStateToName().
_STATES = {
    "poweroff": State.STOPPED,
    "aborted": State.STOPPED,
    "teleported": State.STOPPED,
    "snapshotting": State.STOPPED,
    "restoringsnapshot": State.STOPPED,
    "deletingsnapshot": State.STOPPED,
    "saved": State.SAVED,
    "aborted-saved": State.SAVED,
    "running": State.RUNNING,
    "teleporting": State.RUNNING,
    "livesnapshotting": State.RUNNING,
    "onlinesnapshotting": State.RUNNING,
    "deletingsnapshotlive": State.RUNNING,
    "paused": State.PAUSED,
    "teleportingpausedvm": State.PAUSED,
    "deletingsnapshotlivepaused": State.PAUSED,
    "starting": State.STARTING,
    "restoring": State.STARTING,
    "settingup": State.STARTING,
    "teleportingin": State.STARTING,
    "stopping": State.STOPPING,
    "saving": State.STOPPING,
}


@dataclass(frozen=True)
class Forward:
    """A rule of the NAT: what comes in on host:port of this computer goes to guest_port."""

    name: str
    protocol: str
    host: str
    port: int
    guest_port: int

    def __str__(self) -> str:
        return f"{self.name},{self.protocol},{self.host},{self.port},,{self.guest_port}"


@dataclass(frozen=True)
class Info:
    """A virtual machine as `showvminfo --machinereadable` tells it."""

    fields: dict[str, str]

    @property
    def word(self) -> str:
        """VirtualBox's own name for the state."""
        return self.fields.get("VMState", "")

    @property
    def state(self) -> State:
        return _STATES.get(self.word, State.ERROR)

    @property
    def config(self) -> str:
        """The path of the .vbox file."""
        return self.fields.get("CfgFile", "")

    @property
    def logs(self) -> str:
        return self.fields.get("LogFldr", "")

    @property
    def media(self) -> dict[str, str]:
        """What is in the drives: "SATA-1-0" -> the file's path; empty drives aren't told."""
        return {
            key: value
            for key, value in self.fields.items()
            if _ATTACHED.fullmatch(key) and _is_absolute(value) and "ImageUUID" not in key
        }

    @property
    def forwards(self) -> list[Forward]:
        return [
            Forward(words[0], words[1], words[2], int(words[3]), int(words[5]))
            for key, value in self.fields.items()
            if key.startswith("Forwarding(") and len(words := value.split(",")) == 6
        ]


def machinereadable(text: str) -> dict[str, str]:
    """The pairs of a --machinereadable output, quotes and escapes taken off."""
    pairs: dict[str, str] = {}
    for match in _PAIR.finditer(text):
        value = match["bare"]
        if value is None:
            value = re.sub(r'\\([\\"])', r"\1", match["text"] + match["slashes"])
        pairs[match["quoted"] or match["key"]] = value
    return pairs


def blocks(text: str) -> list[dict[str, str]]:
    """The paragraphs of a `list` output: lines `Key:   value`."""
    paragraphs: list[dict[str, str]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        pairs = (line.partition(":") for line in paragraph.splitlines() if ":" in line)
        if block := {key.strip(): value.strip() for key, _, value in pairs}:
            paragraphs.append(block)
    return paragraphs


def registered(text: str) -> list[str]:
    """The UUIDs of `list vms`; a name may hold anything, quotes and braces included."""
    return [match["uuid"] for match in _REGISTERED.finditer(text)]


def settings_files(text: str) -> dict[str, str]:
    """UUID -> path of `list --long vms`: the two lines follow each other, with others between in newer versions."""
    files: dict[str, str] = {}
    uuid = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "UUID":
            uuid = value.strip()
        elif key == "Config file" and uuid:
            files.setdefault(uuid, value.strip())
    return files


def uuid(settings: str) -> str:
    """The virtual machine's UUID, of a .vbox file. Raises ValueError."""
    from xml.etree import ElementTree

    try:
        machine = ElementTree.fromstring(settings).find(f"{_NAMESPACE}Machine")
    except ElementTree.ParseError as error:
        raise ValueError(f"its settings are damaged: {error}") from error
    if machine is None or not (text := machine.get("uuid", "").strip("{}")):
        raise ValueError("its settings hold no UUID")
    return text


def version(text: str) -> tuple[int, int, int] | None:
    """(7, 2, 22) of "7.2.22_Debianr175245"."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def snapshots(settings: str) -> list[tuple[str, Snapshot]]:
    """UUID and snapshot, oldest first, of a .vbox file: VBoxManage tells no times."""
    from xml.etree import ElementTree  # each look at a machine's state would pay for it

    listed = [
        (
            node.get("uuid", "").strip("{}"),
            Snapshot(node.get("name", ""), node.get("timeStamp", ""), running=bool(node.get("stateFile"))),
        )
        for node in ElementTree.fromstring(settings).iter(f"{_NAMESPACE}Snapshot")
    ]
    return sorted(listed, key=lambda pair: pair[1].created)


def _is_absolute(path: str) -> bool:
    return PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()

"""What machine.yaml may hold, as a JSON schema (2020-12); and the mistakes of a file by it.

The keys of a machine are the options of `machine create`: they come from the command line's own table, as `Key`.
schema.json, in this package, is the schema with the drivers of this project.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine.project import steps
from machine.project.templates import nearest
from machine.project.values import Mistakes, Place, Value

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

FILE = Path(__file__).with_name("schema.json")
# resources.mib reads it, and no number of it is 0.
SIZE = r"^[0-9]{1,15}(\.[0-9]{1,15})?\s*([mMgGtT]([iI]?[bB])?)?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_-]*$"
NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"


class Kind(StrEnum):
    """What the value of an option is."""

    TEXT = "text"
    SIZE = "size"
    NUMBER = "number"
    SWITCH = "switch"
    LIST = "list"


@dataclass(frozen=True)
class Key:
    """An option of `create`: name without dashes in front; driver: whose own it is, "" for all; default in words."""

    name: str
    kind: Kind
    help: str
    metavar: str = ""
    default: str = ""
    driver: str = ""


_TYPES: dict[Kind, dict[str, Any]] = {
    Kind.TEXT: {"type": ["string", "integer", "number"]},
    Kind.SIZE: {"type": ["string", "integer"], "pattern": SIZE, "examples": ["4G", 512]},
    Kind.NUMBER: {"type": "integer", "minimum": 0},
    Kind.SWITCH: {"type": "boolean"},
    Kind.LIST: {"type": "array", "items": {"type": ["string", "integer", "number"]}},
}
# Of options of create whose metavar alone says too little.
_EXAMPLES: dict[str, Any] = {
    "driver": "qemu",
    "memory": "4G",
    "cpus": 4,
    "disk": "40G",
    "image": "debian-12",
    "arch": "arm64",
    "engine-opt": ["log-driver=local"],
    "engine-label": ["stage=dev"],
    "engine-env": ["HTTPS_PROXY=http://proxy.example:3128"],
    "engine-registry-mirror": ["http://10.0.2.2:5000"],
    "engine-insecure-registry": ["10.0.2.2:5000"],
    "engine-storage-driver": "overlay2",
    "tls-san": ["dev.example"],
    "mount": [".", "~/data:/data:ro"],
    "host": ["registry.test=192.168.1.10"],
    "sysctl": ["vm.max_map_count=262144"],
}
_SCALARS = ("string", "integer", "number", "boolean")
_TEXT = {"type": "string", "minLength": 1}


def _object(properties: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "description": text, "additionalProperties": False, "properties": properties, **more}


def build(keys: Iterable[Key], drivers: Sequence[str]) -> dict[str, Any]:
    """The schema for these options of `create`, of these drivers."""
    options = {key.name: _option(key) for key in keys}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "machine.yaml",
        "x-drivers": sorted(drivers),
        **_object(_top(), "The machines of a project: machine up makes them.", required=["machines"]),
        "$defs": {"machine": _machine(options)},
    }


def _option(key: Key) -> dict[str, Any]:
    found = {"description": key.help, **_TYPES[key.kind], "x-option": f"--{key.name}"}
    found |= {"examples": [_EXAMPLES[key.name]]} if key.name in _EXAMPLES else {}
    found |= {"x-metavar": key.metavar} if key.metavar else {}
    found |= {"x-driver": key.driver} if key.driver else {}
    return found | ({"x-default": key.default} if key.default else {})


_MODE = {
    "description": "once: as root, once in the machine's life. boot: as root, at each boot. user: once, as its user.",
    "enum": list(steps.Mode),
    "x-default": "once",
}
_STEP = _object(
    {
        "script": {
            "description": "The script: its text, or {file: PATH}. sh runs it, or what its first line names.",
            "type": ["string", "object"],
            "minLength": 1,
            "properties": {"file": {"description": "A file of this computer.", **_TEXT}},
            "required": ["file"],
            "additionalProperties": False,
            "examples": ["apt-get install -y make"],
        },
        "copy": _object(
            {
                "from": {"description": "A file or folder of this computer.", **_TEXT, "examples": ["./conf"]},
                "to": {
                    "description": "Its path there.",
                    "type": "string",
                    "pattern": "^/.",
                    "examples": ["/etc/x.conf"],
                },
                "mode": {
                    "description": "Permissions of the files, octal. Default: as here.",
                    "type": ["string", "integer"],
                    "pattern": "^[0-7]{3,4}$",
                    "examples": ["0644"],
                },
                "owner": {"description": "USER or USER:GROUP. Default: root, or the user.", **_TEXT},
            },
            "A file or folder to copy into the machine.",
            required=["from", "to"],
        ),
        "mode": _MODE,
        "name": {"description": "What progress and errors call it.", **_TEXT, "examples": ["packages"]},
        "timeout": {
            "description": "Seconds that it may take.",
            "type": "integer",
            "minimum": 1,
            "x-default": str(steps.STEP_TIMEOUT),
            "examples": [60],
        },
    },
    "A step.",
)
_PROBE = _object(
    {
        "command": {
            "description": "A line of sh that succeeds, as root, when all is well. It is tried again and again.",
            **_TEXT,
            "examples": ["curl -fs http://localhost"],
        },
        "hint": {"description": "What to do when it doesn't.", **_TEXT},
        "name": {"description": "What it waits for.", **_TEXT, "examples": ["the web server"]},
        "timeout": {
            "description": "Seconds to wait for it.",
            "type": "integer",
            "minimum": 1,
            "x-default": str(steps.PROBE_TIMEOUT),
            "examples": [60],
        },
    },
    "A probe.",
    required=["command"],
)


def _top() -> dict[str, Any]:
    machine = {"$ref": "#/$defs/machine"}
    return {
        "name": {
            "description": "The project's name. Default: that of the folder.",
            "type": "string",
            "pattern": NAME,
            "examples": ["shop"],
        },
        "base": {
            "description": "A file that this one adds to: a path from this file, or a URL that ends with #sha256=...",
            "examples": ["../common.yaml"],
            **_TEXT,
        },
        "args": {
            "description": "What --arg NAME=VALUE gives, and ${{ args.NAME }} stands for.",
            "type": "object",
            "propertyNames": {"pattern": VARIABLE},
            "additionalProperties": _object(
                {
                    "default": {"description": "Its value when none is given.", "type": list(_SCALARS)},
                    "required": {"description": "Whether one must be given.", "type": "boolean", "x-default": "false"},
                    "enum": {
                        "description": "All values that are allowed.",
                        "type": "array",
                        "items": {"type": list(_SCALARS)},
                    },
                    "pattern": {"description": "A regular expression that all of it must match.", **_TEXT},
                    "description": {"description": "What it is for.", **_TEXT},
                },
                "An argument.",
            )
            | {"type": ["object", "null"]},
            "examples": [{"size": {"default": "2G", "enum": ["2G", "4G"]}}],
        },
        "env": {
            "description": "The variables of this computer's environment that ${{ env.NAME }} may stand for.",
            "type": "array",
            "items": {"type": "string", "pattern": VARIABLE},
            "examples": [["USER"]],
        },
        "defaults": {"description": "What all machines have: the keys of a machine.", **machine},
        "machines": {
            "description": "The machines, by name.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": machine,
        },
    }


def _machine(options: dict[str, Any]) -> dict[str, Any]:
    own = {
        "count": {
            "description": "Make so many: NAME-1, NAME-2, and so on.",
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "x-default": "one, called NAME",
            "examples": [3],
        },
        "provision": {
            "description": "Steps that machine up runs in the machine, in this order: each runs one script, or copies.",
            "type": "array",
            "items": _STEP,
        },
        "probes": {
            "description": "Commands that must succeed before machine up ends.",
            "type": "array",
            "items": _PROBE,
        },
    }
    return _object({**own, **options}, "A machine, by the options of machine create.") | {"type": ["object", "null"]}


@functools.cache
def packaged() -> dict[str, Any]:
    """The schema with the drivers of this project; reading it takes a millisecond, making it imports all drivers."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def dumps(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2) + "\n"


def check(value: Value, schema: dict[str, Any], mistakes: Mistakes) -> None:
    """Note everything in the value that the schema doesn't allow."""
    import jsonschema  # 100 ms, and only the verbs that read the file need it

    for error in jsonschema.Draft202012Validator(schema).iter_errors(value.plain()):
        _note(error, value, mistakes)


def _note(error: ValidationError, root: Value, mistakes: Mistakes) -> None:
    path = list(error.absolute_path)
    wanted: Any = error.validator_value
    value, place = _at(root, path)
    where = f"{_last(path)}: " if path else ""
    if error.validator == "additionalProperties":
        known = list(_rules(error).get("properties", {}))
        for key in [key for key, _ in value.items() if key not in known]:
            told = nearest(key, known)
            mistakes.add(value.keys[key], f'unknown key "{key}"' + (f":{told}" if told else ""))
    elif error.validator in {"type", "enum", "pattern"} and mistakes.has(place):
        return  # a template that couldn't be filled in
    elif error.validator == "required":
        lacks = [key for key in wanted if value.get(key) is None]
        mistakes.add(place, f"{where}{' and '.join(lacks)} must be given")
    else:
        mistakes.add(place, where + _sentence(error))


def _rules(error: ValidationError) -> dict[str, Any]:
    """The part of the schema that the error is about."""
    return error.schema if isinstance(error.schema, dict) else {}


def _sentence(error: ValidationError) -> str:
    given = error.instance
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            return f"{_words(given)} is not allowed: give {_types(wanted)}{_example(error)}"
        case "enum":
            close = nearest(str(given), list(wanted))
            return f"{_words(given)} is not allowed:{close or ' give ' + ', '.join(wanted)}"
        case "minimum" | "minItems" | "minProperties" | "minLength":
            return f"{_words(given)} is too {'small' if error.validator == 'minimum' else 'short'}: {wanted} at least"
        case "maximum":
            return f"{given} is too large: {wanted} at most"
        case "pattern":
            return f"{_words(given)} is not allowed{_example(error)}"
        case _:
            return error.message


def _types(wanted: str | list[str]) -> str:
    words = {
        "string": "a text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping",
        "null": "nothing",
    }
    names = [wanted] if isinstance(wanted, str) else [name for name in wanted if name != "null"]
    if "number" in names:
        names = [name for name in names if name != "integer"]
    return " or ".join(words[name] for name in names)


def _example(error: ValidationError) -> str:
    examples = _rules(error).get("examples", [])
    if not examples:
        return ""
    shown = f"[{', '.join(map(str, examples[0]))}]" if isinstance(examples[0], list) else examples[0]
    return f", for example {shown}"


def _words(given: object) -> str:
    if isinstance(given, dict):
        return "a mapping"
    if isinstance(given, list):
        return "a list" if given else "an empty list"
    return "nothing" if given is None else json.dumps(given, ensure_ascii=False)


def _at(root: Value, path: Sequence[str | int]) -> tuple[Value, Place]:
    value, place = root, root.place
    for part in path:
        if isinstance(value.data, dict):
            value, place = value.data[str(part)], value.keys[str(part)]
            place = place if isinstance(value.data, dict | list) else value.place
        elif isinstance(value.data, list):
            value = value.data[int(part)]
            place = value.place
    return value, place


def _last(path: Sequence[str | int]) -> str:
    """The nearest key above."""
    return next((str(part) for part in reversed(path) if isinstance(part, str)), "")

"""From a machine's values in machine.yaml to its steps and probes."""

from __future__ import annotations

from pathlib import Path

from machine import files
from machine.project.steps import PROBE_TIMEOUT, STEP_TIMEOUT, Mode, Probe, Step
from machine.project.values import Mistakes, Value
from machine.reasons import reason


def steps(machine: Value, mistakes: Mistakes) -> tuple[Step, ...]:
    """Those whose values are of the right types; the schema tells of others."""
    listed = machine.get("provision")
    found = [_step(number, item, mistakes) for number, item in enumerate(listed.values() if listed else [], 1)]
    return tuple(step for step in found if step)


def probes(machine: Value) -> tuple[Probe, ...]:
    listed = machine.get("probes")
    found = []
    for item in listed.values() if listed else []:
        command = _text(item, "command")
        name = _text(item, "name") or f"`{command}` to succeed"
        found.append(Probe(name, command, _text(item, "hint"), _number(item, PROBE_TIMEOUT)))
    return tuple(found)


def _step(number: int, item: Value, mistakes: Mistakes) -> Step | None:
    script, copy = item.get("script"), item.get("copy")
    if (script is None) == (copy is None):
        mistakes.add(item.place, "a step has either script or copy")
        return None
    mode = _text(item, "mode") or Mode.ONCE
    if mode not in list(Mode):
        return None
    named = _text(item, "name")
    common = (Mode(mode), _number(item, STEP_TIMEOUT))
    if script is not None:
        return Step(named or f"step {number}", *common, script=_script(script, mistakes))
    assert copy is not None
    if not (source := _text(copy, "from")):
        return None
    path = Path(source).expanduser().absolute()
    if not path.exists():
        mistakes.add((copy.get("from") or copy).place, f"there is no file {path}")
        return None
    target = _text(copy, "to")
    permissions = copy.get("mode")
    return Step(
        named or f"step {number}",
        *common,
        source=str(path),
        target=target + path.name if target.endswith("/") else target,
        permissions=permissions.text if permissions else "",
        owner=_text(copy, "owner"),
    )


def _script(value: Value, mistakes: Mistakes) -> str:
    if (file := value.get("file")) is None:
        return str(value.data)
    try:
        return files.read_text(Path(str(file.data)).expanduser())
    except (OSError, UnicodeDecodeError) as error:
        mistakes.add(file.place, f"{file.data} can't be read: {reason(error)}")
        return ""


def _text(value: Value, key: str) -> str:
    found = value.get(key)
    return found.data if found and isinstance(found.data, str) else ""


def _number(value: Value, default: int) -> int:
    found = value.get("timeout")
    return found.data if found and isinstance(found.data, int) else default

"""Values of templates: how Go prints them, which count as true, how a field is looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from machine.errors import Usage

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
HINT = "see all fields: --format '{{json .}}'"


def text(value: Value) -> str:
    """As Go's fmt prints it: [a b] for a list, map[k:v] for an object."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(text(item) for item in value) + "]"
    return str(value)


def lookup(value: Value, fields: Sequence[str], path: str) -> Value:
    """A field of a value. path: the whole path, for the error. Raises Usage."""
    for field in fields:
        if not isinstance(value, Mapping):
            raise Usage(f"the format has {path}, but the value before {field} has no fields", hint="see them: --json")
        if field not in value:
            raise Usage(
                f"the format has {path}, but there is no {field}: there are {', '.join(value)}",
                hint="--format '{{json .}}'",
            )
        value = value[field]
    return value


def items(value: Value) -> list[tuple[Value, Value]]:
    """The pairs that `range` visits: (index or key, item), keys in order. Raises Usage."""
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    if value is None:
        return []
    raise Usage(f"range can't go through {text(value)}", hint=HINT)

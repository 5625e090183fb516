"""The part of Go's templates that is used with `docker-machine ls --format` and `inspect --format`.

    {{.Name}}  {{.Driver.IPAddress}}  {{json .}}  {{.Driver | prettyjson}}  {{"text"}}  {{/* comment */}}  {{- .Name -}}

Whatever else Go has (if, range, variables, functions) is refused with Usage: a half-understood template would give
wrong answers. Unlike Go's, a field that isn't there is refused too: a script would take `<no value>` for an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from machine.errors import Usage

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(?:(\|)|((?:\.\w+)+|\.(?![\w.]))|("(?:[^"\\\n]|\\.)*"|`[^`]*`)|(json|prettyjson)\b)')


@dataclass(frozen=True)
class _Pipeline:
    """An operand, and the functions that it goes through, in order."""

    operand: str
    functions: tuple[str, ...]

    def value(self, data: Value) -> Value:
        value = _literal(self.operand) if self.operand[0] in '"`' else _lookup(data, self.operand)
        for function in self.functions:
            value = _FUNCTIONS[function](value)
        return value


class Template:
    """A parsed template. Raises Usage for what isn't supported."""

    def __init__(self, text: str) -> None:
        self._parts: list[str | _Pipeline] = []
        position, trim = 0, False
        for match in _ACTION.finditer(text):
            before, body = text[position : match.start()], match[2].strip()
            before = before.lstrip() if trim else before
            self._parts.append(before.rstrip() if match[1] else before)
            if not (body.startswith("/*") and body.endswith("*/")):
                self._parts.append(_parse(body))
            position, trim = match.end(), bool(match[3])
        rest = text[position:]
        if "{{" in rest:
            raise Usage(f'the format "{text}" has {{{{ without }}}}', hint="--format '{{.Name}}'")
        self._parts.append(rest.lstrip() if trim else rest)

    def render(self, data: Value) -> str:
        """Raises Usage for a field that data doesn't have."""
        return "".join(part if isinstance(part, str) else text(part.value(data)) for part in self._parts)

    def header(self, headers: Mapping[str, str]) -> str:
        """The template with its fields' headings in the place of their values."""
        return "".join(part if isinstance(part, str) else _heading(part.operand, headers) for part in self._parts)

    def needs(self, field: str) -> bool:
        """Whether the field is among those that are printed."""
        operands = [part.operand for part in self._parts if isinstance(part, _Pipeline)]
        return any(operand == "." or operand.split(".")[1:2] == [field] for operand in operands)


def text(value: Value) -> str:
    """A value as Go prints it: [a b] for a list, map[k:v] for an object."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(text(item) for item in value) + "]"
    return str(value)


def _parse(action: str) -> _Pipeline:
    commands: list[list[str]] = [[]]
    position = 0
    while position < len(action):
        match = _TOKEN.match(action, position)
        if not match:
            raise _unsupported(action)
        if match[1]:
            commands.append([])
        else:
            commands[-1].append(match[2] or match[3] or match[4])
        position = match.end()
    first, *rest = commands
    # `json .X` is the same as `.X | json`
    *function, operand = first or [""]
    piped = [word for command in rest for word in command]
    functions = (*function, *piped)
    if (
        operand[:1] not in {".", '"', "`"}
        or len(function) > 1
        or any(len(command) != 1 for command in rest)
        or not set(functions) <= _FUNCTIONS.keys()
    ):
        raise _unsupported(action)
    return _Pipeline(operand, functions)


def _unsupported(action: str) -> Usage:
    return Usage(
        f"the format has {{{{{action}}}}}, which machine doesn't know",
        hint="it knows fields, json and prettyjson: --format '{{.Name}}', or use --json",
    )


def _literal(token: str) -> str:
    if token[0] == "`":
        return token[1:-1]
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise _unsupported(token) from error


def _lookup(data: Value, path: str) -> Value:
    value = data
    for field in path.split(".")[1:]:
        if not field:
            return value
        if not isinstance(value, Mapping):
            raise Usage(f"the format has {path}, but what {field} is asked of has no fields", hint="see them: --json")
        if field not in value:
            raise Usage(f"there is no {field} in {path}; there are {', '.join(value)}", hint="--format '{{json .}}'")
        value = value[field]
    return value


def _heading(operand: str, headers: Mapping[str, str]) -> str:
    if operand[0] != ".":
        return _literal(operand)
    field = operand.rpartition(".")[2]
    return headers.get(field, field.upper())


def _json(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _prettyjson(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=4)


_FUNCTIONS = {"json": _json, "prettyjson": _prettyjson}

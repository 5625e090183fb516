"""YAML as values that know where they stand, so that a mistake is named by line and column; and how two are merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from machine.errors import CheckFailed
from machine.reasons import reason

Scalar = str | int | float | bool | None
_STR, _INT, _FLOAT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Place:
    """Line and column count from 1, as editors do."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Value:
    """text: a scalar as it was written. keys: where each key of a mapping stands."""

    data: Scalar | list[Value] | dict[str, Value]
    place: Place
    text: str = ""
    keys: dict[str, Place] = field(default_factory=dict)

    def plain(self) -> Any:
        """The same as Python's own lists, dicts and scalars."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        return [value.plain() for value in self.data] if isinstance(self.data, list) else self.data

    def get(self, key: str) -> Value | None:
        return self.data.get(key) if isinstance(self.data, dict) else None

    def without(self, keys: Sequence[str]) -> Value:
        """A mapping without these keys."""
        return Value({key: value for key, value in self.items() if key not in keys}, self.place, keys=self.keys)

    def items(self) -> list[tuple[str, Value]]:
        return list(self.data.items()) if isinstance(self.data, dict) else []

    def values(self) -> list[Value]:
        return self.data if isinstance(self.data, list) else []


class Mistakes:
    """What is wrong with a file: all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str]] = []

    def add(self, place: Place, text: str) -> None:
        if (place, text) not in self.found:
            self.found.append((place, text))

    def has(self, place: Place) -> bool:
        return any(place == there for there, _ in self.found)

    def check(self) -> None:
        """Raise CheckFailed when there are any."""
        if not self.found:
            return
        ordered = sorted(self.found, key=lambda one: (one[0].source, one[0].line, one[0].column))
        lines = [f"{place}: {text}" for place, text in ordered]
        hint = "machine schema"
        if len(lines) == 1:
            raise CheckFailed(lines[0], hint=hint)
        source = ordered[0][0].source
        raise CheckFailed(f"{source} has {len(lines)} mistakes", details="\n".join(lines), hint=hint)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars as in YAML 1.2: `no`, `on` and 12:30 are texts."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own name, which add_implicit_resolver fills


for _tag, _pattern, _first in (
    (_BOOL, r"true|false", "tf"),
    (_NULL, r"~|null|", "~n\0"),
    (_INT, r"-?[0-9]+", "-0123456789"),
    (_FLOAT, r"-?[0-9]+\.[0-9]+", "-0123456789"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})$"), [*_first.replace("\0", ""), ""])


def read(text: str, source: str) -> Value:
    """source: what positions call the file. Raises CheckFailed for what isn't YAML, or has a key twice."""
    mistakes = Mistakes()
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source, 1, 1)
        mistakes.add(place, " ".join(filter(None, [error.problem or "this is no YAML", error.context])))
        node = None
    except (yaml.YAMLError, RecursionError) as error:
        mistakes.add(Place(source, 1, 1), " ".join(reason(error).split()))
        node = None
    mistakes.check()
    if node is None:
        return Value({}, Place(source, 1, 1))
    value = _value(node, source, mistakes, ())
    mistakes.check()
    return value


def _value(node: yaml.Node, source: str, mistakes: Mistakes, above: tuple[int, ...]) -> Value:
    place = Place(source, node.start_mark.line + 1, node.start_mark.column + 1)
    if id(node) in above:
        mistakes.add(place, "an alias leads to what it is a part of")
        return Value(None, place)
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, mistakes, above)
    if isinstance(node, yaml.SequenceNode):
        return Value([_value(item, source, mistakes, above) for item in node.value], place)
    return Value(scalar(node.value, node.tag), place, node.value)


def _mapping(node: yaml.MappingNode, place: Place, mistakes: Mistakes, above: tuple[int, ...]) -> Value:
    found: dict[str, Value] = {}
    keys: dict[str, Place] = {}
    for key, item in node.value:
        at = Place(place.source, key.start_mark.line + 1, key.start_mark.column + 1)
        if not isinstance(key, yaml.ScalarNode):
            mistakes.add(at, "a key must be a word")
        elif key.value in found:
            mistakes.add(at, f'the key "{key.value}" is here twice: first in line {keys[key.value].line}')
        else:
            found[key.value] = _value(item, place.source, mistakes, above)
            keys[key.value] = at
    return Value(found, place, keys=keys)


def scalar(text: str, tag: str) -> Scalar:
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return text == "true"
    # A number with a leading zero is a file's mode, or a name; the digits are limited, because int() limits them.
    if tag == _INT and (text == "0" or not text.lstrip("-").startswith("0")) and len(text) < 19:
        return int(text)
    return float(text) if tag == _FLOAT else text


def merged(base: Value, own: Value) -> Value:
    """Mappings merge, lists append, and of scalars our own counts."""
    if isinstance(base.data, dict) and isinstance(own.data, dict):
        both = {key: merged(value, own.data[key]) if key in own.data else value for key, value in base.data.items()}
        return Value(both | {k: v for k, v in own.data.items() if k not in both}, own.place, keys=base.keys | own.keys)
    if isinstance(base.data, list) and isinstance(own.data, list):
        return Value([*base.data, *own.data], own.place)
    return own

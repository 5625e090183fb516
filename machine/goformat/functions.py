"""The functions of templates: Go's own (text/template), docker's, and docker-machine's prettyjson."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from machine.errors import Usage
from machine.goformat.values import HINT, Value, text

_VERB = re.compile(r"%(?P<flags>[-+ 0#]*)(?P<width>\d*)(?P<precision>(?:\.\d*)?)(?P<verb>.)", re.DOTALL)
_COMPARISONS: dict[str, Callable[..., bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def call(name: str, arguments: Sequence[Value]) -> Value:
    """Raises Usage for arguments of the wrong kind."""
    try:
        return _compare(name, *arguments) if name in _COMPARISONS else _FUNCTIONS[name](*arguments)
    except (TypeError, AttributeError) as error:
        shown = ", ".join(map(text, arguments))
        raise Usage(f"{name} in the format can't take {shown}", hint=HINT) from error


def truth(value: Value) -> bool:
    """As in Go: false, 0, nil and empty values aren't true."""
    return bool(value)


def _equal(first: Value, *others: Value) -> bool:
    return any(_same(first, other) for other in others)


def _same(one: Value, other: Value) -> bool:
    if _kind(one) != _kind(other) and None not in (one, other):
        raise Usage(
            f"eq in the format can't compare {text(one)} and {text(other)}", hint='text is in quotes: eq .X "1"'
        )
    return one == other


def _kind(value: Value) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def _compare(name: str, one: Value, other: Value) -> bool:
    if _kind(one) != _kind(other) or not isinstance(one, str | int | float):
        raise Usage(f"{name} in the format can't compare {text(one)} and {text(other)}", hint=HINT)
    return _COMPARISONS[name](one, other)


def _index(value: Value, *keys: Value) -> Value:
    """An item of a list, or the value of an object's key: None for a missing key, as in Go."""
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(str(key))
        elif isinstance(value, Sequence) and isinstance(key, int) and not isinstance(value, str):
            if not 0 <= key < len(value):
                raise Usage(f"index {key} in the format is out of range: there are {len(value)}", hint=HINT)
            value = value[key]
        else:
            raise Usage(f"index in the format can't look up {text(key)} in {text(value)}", hint=HINT)
    return value


def _slice(value: str | Sequence[Value], *bounds: int) -> Value:
    begin, end = (*bounds, *(0, len(value))[len(bounds) :])[:2]
    if not 0 <= begin <= end <= len(value):
        raise Usage(f"slice {begin} {end} in the format is out of range: there are {len(value)}", hint=HINT)
    return value[begin:end]


def _length(value: str | Sequence[Value] | Mapping[str, Value]) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)


def _print(*values: Value) -> str:
    """Put a blank between two operands when neither is text, as fmt.Sprint does."""
    shown = ""
    for at, value in enumerate(values):
        apart = at and not isinstance(value, str) and not isinstance(values[at - 1], str)
        shown += f"{' ' if apart else ''}{text(value)}"
    return shown


def _println(*values: Value) -> str:
    return " ".join(map(text, values)) + "\n"


def _printf(form: str, *values: Value) -> str:
    left = list(values)

    def show(match: re.Match[str]) -> str:
        if match["verb"] == "%":
            return "%"
        if not left:
            raise Usage(f"printf in the format has too few values for {form!r}", hint='printf "%s" .Name')
        return _verb(match, left.pop(0))

    shown = _VERB.sub(show, form)
    if left:
        raise Usage(f"printf in the format has too many values for {form!r}", hint='printf "%s" .Name')
    return shown


def _verb(match: re.Match[str], value: Value) -> str:
    verb, layout = match["verb"], f"%{match['flags']}{match['width']}{match['precision']}"
    if verb in "sv":
        return f"{layout}s" % text(value)
    if verb == "q":
        return f"{layout}s" % json.dumps(text(value), ensure_ascii=False)
    if verb == "t" and isinstance(value, bool):
        return f"{layout}s" % text(value)
    if verb in "dxXo" and isinstance(value, int):
        return f"{layout}{verb}" % value
    if verb in "feEgG" and isinstance(value, int | float):
        return f"{layout}{verb}" % value
    if verb in "xX" and isinstance(value, str):
        shown = value.encode().hex()
        return f"{layout}s" % (shown.upper() if verb == "X" else shown)
    raise Usage(f"printf in the format can't show {text(value)} by %{verb}", hint='printf "%v" .Name')


def _json(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _prettyjson(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=4)


def _join(parts: Sequence[str], separator: str) -> str:
    if isinstance(parts, str):
        raise TypeError  # it is a sequence here, and not in Go
    return separator.join(parts)


def _split(value: str, separator: str) -> list[Value]:
    return [*(value.split(separator) if separator else value)]


def _title(value: str) -> str:
    """Upper case for the first letter of each word, and no other change, as strings.Title does."""
    return re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), value)


def _pad(value: str, before: int, after: int) -> str:
    return " " * before + value + " " * after if value else value


def _truncate(value: str, length: int) -> str:
    return value[:length] if length >= 0 else value


def _not(value: Value) -> bool:
    return not truth(value)


def _differs(one: Value, other: Value) -> bool:
    return not _same(one, other)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "eq": _equal,
    "index": _index,
    "join": _join,
    "json": _json,
    "len": _length,
    "lower": str.lower,
    "ne": _differs,
    "not": _not,
    "pad": _pad,
    "prettyjson": _prettyjson,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "split": _split,
    "title": _title,
    "truncate": _truncate,
    "upper": str.upper,
}
# The least and the most arguments of each function, including the piped one.
ARGUMENTS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("json", "len", "lower", "not", "prettyjson", "title", "upper"), (1, 1)),
    **dict.fromkeys(("ge", "gt", "join", "le", "lt", "ne", "split", "truncate"), (2, 2)),
    **dict.fromkeys(("and", "index", "or", "printf"), (1, None)),
    **dict.fromkeys(("print", "println"), (0, None)),
    "eq": (2, None),
    "pad": (3, 3),
    "slice": (1, 3),
}

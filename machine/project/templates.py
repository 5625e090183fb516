"""${{ args.NAME }} and ${{ env.NAME }} in texts of a file. $${{ stands for ${{ itself.

Only names that the file itself lists are filled in: what it takes from the host's environment can be read in it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from machine.project.values import Mistakes, Place, Scalar, Value

_TEMPLATE = re.compile(r"(?P<escaped>\$\$\{\{)|\$\{\{(?P<words>.*?)\}\}|(?P<open>\$\{\{)", re.DOTALL)
_NAME = re.compile(r"\s*(args|env)\.([A-Za-z_][A-Za-z0-9_-]*)\s*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


@dataclass(frozen=True)
class Names:
    """What can be filled in: the values of args, and of the listed variables of the environment."""

    args: Mapping[str, Scalar]
    env: Mapping[str, str]


def filled(value: Value, names: Names, mistakes: Mistakes) -> Value:
    """The value with its texts filled in. What is nothing but a template may become a number, or true or false."""
    if isinstance(value.data, dict):
        return Value({k: filled(v, names, mistakes) for k, v in value.data.items()}, value.place, keys=value.keys)
    if isinstance(value.data, list):
        return Value([filled(item, names, mistakes) for item in value.data], value.place)
    if not isinstance(value.data, str) or "${{" not in value.data:
        return value
    text = _TEMPLATE.sub(lambda found: _filled(found, names, value.place, mistakes), value.data)
    whole = _TEMPLATE.fullmatch(value.data)
    return Value(_typed(text) if whole and not whole["escaped"] else text, value.place, text)


def _filled(found: re.Match[str], names: Names, place: Place, mistakes: Mistakes) -> str:
    if found["escaped"]:
        return "${{"
    if found["open"]:
        mistakes.add(place, "a ${{ has no }}: write $${{ for the characters themselves")
        return found[0]
    named = _NAME.fullmatch(found["words"])
    if not named:
        mistakes.add(place, f"{found[0]} isn't understood: write ${{{{ args.NAME }}}} or ${{{{ env.NAME }}}}")
        return found[0]
    known: Mapping[str, Scalar] = names.args if named[1] == "args" else names.env
    if named[2] in known:
        return _text(known[named[2]])
    mistakes.add(place, f'there is no "{named[2]}" under {named[1]}:{nearest(named[2], known)}')
    return found[0]


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _typed(text: str) -> Scalar:
    if _NUMBER.fullmatch(text):
        return int(text)
    return text == "true" if text in {"true", "false"} else text


def nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    """What to say after a wrong word: the nearest one, or all if there are few."""
    if close := difflib.get_close_matches(word, list(known), 1, 0.6):
        return f' did you mean "{close[0]}"?'
    return f" there is {', '.join(known)}" if 0 < len(known) <= 12 else ""

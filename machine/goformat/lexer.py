"""A template cut into text and the tokens of its actions (text/template/parse/lex.go describes the language)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from machine.errors import Usage

_COMMENT = re.compile(r"\{\{(?:-(?=\s))?\s*/\*.*?\*/\s*(?:(?<=\s)-)?\}\}", re.DOTALL)
_LEFT = re.compile(r"\{\{(-(?=\s))?")
_RIGHT = re.compile(r"\s*?(\s-)?\}\}")
_TOKEN = re.compile(
    r"""(?P<string> "(?:[^"\\\n]|\\.)*" | `[^`]*`)
      | (?P<char>   '(?:[^'\\\n]|\\.)+')
      | (?P<number> [+-]?\.?\d[\w.]*)
      | (?P<field>  \.\w+)
      | (?P<dot>    \.)
      | (?P<variable> \$\w*)
      | (?P<word>   \w+)
      | (?P<mark>   :=|[=|(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """kind: a group of _TOKEN above. joined: it follows the one before without a blank, as .B does in `.A.B`."""

    kind: str
    text: str
    joined: bool


@dataclass(frozen=True)
class Action:
    """The tokens between {{ and }}; text is for errors."""

    tokens: tuple[Token, ...]
    text: str


def cut(template: str) -> list[str | Action]:
    """Raises Usage for an invalid template."""
    parts: list[str | Action] = []
    position, trim = 0, False
    while match := _LEFT.search(template, position):
        before = template[position : match.start()]
        parts.append(_trimmed(before, left=trim, right=bool(match[1])))
        if comment := _COMMENT.match(template, match.start()):
            position, trim = comment.end(), comment[0].endswith("-}}")
            continue
        action, position, trim = _action(template, match.start(), match.end())
        parts.append(action)
    parts.append(_trimmed(template[position:], left=trim))
    return [part for part in parts if part != ""]


def _trimmed(text: str, *, left: bool = False, right: bool = False) -> str:
    text = text.lstrip(" \t\r\n") if left else text
    return text.rstrip(" \t\r\n") if right else text


def _action(template: str, begin: int, position: int) -> tuple[Action, int, bool]:
    """The action that begins there, where it ends, and whether it trims the blanks after it."""
    tokens: list[Token] = []
    while not (end := _RIGHT.match(template, position)):
        blanks = re.compile(r"\s*").match(template, position)
        start = blanks.end() if blanks else position
        match = _TOKEN.match(template, start)
        if not match:
            raise _unfinished(template, begin) if start == len(template) else _strange(template, begin, start)
        tokens.append(Token(str(match.lastgroup), match[0], joined=start == position and bool(tokens)))
        position = match.end()
    return Action(tuple(tokens), template[begin : end.end()]), end.end(), bool(end[1])


def _unfinished(template: str, begin: int) -> Usage:
    return Usage(f'the format "{template}" has {{{{ without }}}}', hint="--format '{{.Name}}'")


def _strange(template: str, begin: int, at: int) -> Usage:
    return Usage(
        f"the format has \"{template[at : at + 10]}\" in {template[begin : begin + 40]}, which isn't Go's language",
        hint="--format '{{.Name}}', or use --json",
    )

"""Parse tokens into nodes. Checks everything that needs no data: functions, variables, numbers of arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from machine.errors import Usage
from machine.goformat.functions import ARGUMENTS
from machine.goformat.lexer import Action, Token, cut
from machine.goformat.nodes import Body, Branch, Call, Jump, Literal, Node, Operand, Path, Pipeline

_BRANCHES = ("if", "with", "range")
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(text: str) -> Body:
    """Raises Usage."""
    parser = _Parser(cut(text))
    body, end = parser.body({"$"}, in_range=False)
    if end:
        raise Usage(f"the format has {end.text} without if, with or range", hint="--format '{{.Name}}'")
    return body


class _Parser:
    def __init__(self, parts: Sequence[str | Action]) -> None:
        self.parts = list(parts)

    def body(self, known: set[str], *, in_range: bool) -> tuple[Body, Action | None]:
        """The nodes up to {{end}} or {{else}}, and that word. known: the variables that are set there."""
        nodes: list[Node] = []
        while self.parts:
            part = self.parts.pop(0)
            if isinstance(part, str):
                nodes.append(part)
                continue
            word = part.tokens[0].text if part.tokens else ""
            if word in {"end", "else"}:
                return tuple(nodes), part
            nodes.append(self._node(word, part, known, in_range=in_range))
        return tuple(nodes), None

    def _node(self, word: str, action: Action, known: set[str], *, in_range: bool) -> Node:
        if word in _BRANCHES:
            return self._branch(word, action, action.tokens[1:], set(known), in_range=in_range)
        if word in {"break", "continue"} and len(action.tokens) == 1:
            if not in_range:
                raise Usage(f"the format has {action.text} outside of range", hint="--format '{{.Name}}'")
            return Jump(word)
        return _Words(action.tokens, action, known).whole()

    def _branch(self, kind: str, action: Action, words: Sequence[Token], known: set[str], *, in_range: bool) -> Branch:
        pipeline = _Words(words, action, known, in_range=kind == "range").whole()
        body, end = self.body(set(known), in_range=in_range or kind == "range")
        otherwise: Body = ()
        if end and end.tokens[0].text == "else" and len(end.tokens) > 1:  # else if …, else with …
            chained = end.tokens[1].text
            if chained not in {"if", "with"}:
                raise unknown(end)
            return Branch(
                kind, pipeline, body, (self._branch(chained, end, end.tokens[2:], set(known), in_range=in_range),)
            )
        if end and end.tokens[0].text == "else":
            otherwise, end = self.body(set(known), in_range=in_range)
        if end is None or len(end.tokens) != 1 or end.tokens[0].text != "end":
            raise Usage(f"the format has {action.text} without {{{{end}}}}", hint="close it: {{end}}")
        return Branch(kind, pipeline, body, otherwise)


class _Words:
    """The words of one action. in_range: `$i, $x :=` may set two variables."""

    def __init__(self, words: Sequence[Token], action: Action, known: set[str], *, in_range: bool = False) -> None:
        self.words = list(words)
        self.action = action
        self.known = known
        self.in_range = in_range

    def whole(self) -> Pipeline:
        names, declares = self._names()
        pipeline = self._pipeline(names, declares=declares)
        if self.words:
            raise unknown(self.action)
        self.known.update(names)
        return pipeline

    def _names(self) -> tuple[tuple[str, ...], bool]:
        """Take the variables before := or = off the tokens."""
        texts = [word.text for word in self.words]
        for count in (1, 3):
            mark = texts[count] if len(texts) > count else ""
            if mark in {":=", "="} and all(word.kind == "variable" for word in self.words[:count:2]):
                names = tuple(texts[:count:2])
                if count == 3 and (texts[1] != "," or not self.in_range):
                    break
                if mark == "=" and not self.known.issuperset(names):
                    raise self._undefined(names[0])
                del self.words[: count + 1]
                return names, mark == ":="
        return (), False

    def _pipeline(self, names: tuple[str, ...] = (), *, declares: bool = False) -> Pipeline:
        commands: list[Operand] = []
        while True:
            commands.append(self._command(piped=bool(commands)))
            if not self.words or self.words[0].text != "|":
                return Pipeline(tuple(commands), names, declares)
            del self.words[0]

    def _command(self, *, piped: bool) -> Operand:
        first = self._operand()
        arguments: list[Operand] = []
        while self.words and self.words[0].text not in {"|", ")"}:
            arguments.append(self._operand())
        if not isinstance(first, Call):
            if arguments or piped:
                raise unknown(self.action)
            return first
        least, most = ARGUMENTS[first.function]
        count = len(arguments) + piped
        if count < least or (most is not None and count > most):
            raise Usage(f"{first.function} in {self.action.text} has {count} arguments", hint=_expects(first.function))
        return Call(first.function, tuple(arguments))

    def _operand(self) -> Operand:
        if not self.words:
            raise unknown(self.action)
        word = self.words.pop(0)
        if word.text == "(":
            inner = self._pipeline()
            if not self.words or self.words.pop(0).text != ")":
                raise unknown(self.action)
            return self._path(inner)
        if word.kind == "variable":
            if word.text not in self.known:
                raise self._undefined(word.text)
            return self._path(word.text)
        if word.kind == "field":
            return self._path("", word.text[1:])
        if word.kind == "dot":
            return Path("", ())
        return self._word(word)

    def _path(self, base: str | Pipeline, *fields: str) -> Path:
        more = list(fields)
        while self.words and self.words[0].kind == "field" and self.words[0].joined:
            more.append(self.words.pop(0).text[1:])
        return Path(base, tuple(more))

    def _word(self, word: Token) -> Operand:
        if word.kind == "word" and word.text in _CONSTANTS:
            return Literal(_CONSTANTS[word.text])
        if word.kind == "word" and word.text in ARGUMENTS:
            return Call(word.text, ())
        if word.kind == "string":
            return Literal(_string(word.text, self.action))
        if word.kind == "char":
            return Literal(_character(word.text, self.action))
        if word.kind == "number":
            return Literal(_number(word.text, self.action))
        raise unknown(self.action)

    def _undefined(self, name: str) -> Usage:
        return Usage(f"the format has {name} in {self.action.text}, which isn't set", hint=f"{{{{{name} := .Name}}}}")


def unknown(action: Action) -> Usage:
    return Usage(
        f"the format has {action.text}, which machine doesn't know",
        hint=f"it knows if, range, with, and the functions {', '.join(sorted(ARGUMENTS))}; or use --json",
    )


def _expects(function: str) -> str:
    least, most = ARGUMENTS[function]
    return f"{function} takes {least}" + ("" if least == most else " or more" if most is None else f" to {most}")


def _string(token: str, action: Action) -> str:
    if token[0] == "`":
        return token[1:-1]
    # JSON's escapes are Go's, but for these.
    known = re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", token).replace(r"\a", r"\u0007").replace(r"\v", r"\u000b")
    try:
        return str(json.loads(known.replace(r"\'", "'")))
    except ValueError as error:
        raise unknown(action) from error


def _character(token: str, action: Action) -> int:
    """'a' is the number of a character, as in Go."""
    text = _string(f'"{token[1:-1]}"', action)
    if len(text) != 1:
        raise unknown(action)
    return ord(text)


def _number(token: str, action: Action) -> int | float:
    try:
        return int(token, 0)
    except ValueError:
        pass
    try:
        return float(token)
    except ValueError as error:
        raise unknown(action) from error

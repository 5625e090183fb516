"""The nodes of a parsed template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from machine.goformat.values import Value


@dataclass(frozen=True)
class Literal:
    value: Value


@dataclass(frozen=True)
class Path:
    """base: "" for the dot, "$" and "$x" for a variable, or a pipeline in parentheses; then fields of it."""

    base: str | Pipeline
    fields: tuple[str, ...]

    def __str__(self) -> str:
        base = self.base if isinstance(self.base, str) else "(…)"
        return "".join([base, *(f".{field}" for field in self.fields)]) or "."


@dataclass(frozen=True)
class Call:
    """A function with its operands; the piped one comes last."""

    function: str
    arguments: tuple[Operand, ...]


Operand: TypeAlias = Literal | Path | Call


@dataclass(frozen=True)
class Pipeline:
    """commands: the first may be anything, those after a | are calls. names: the variables that it sets."""

    commands: tuple[Operand, ...]
    names: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True)
class Branch:
    """if, with or range."""

    kind: str
    pipeline: Pipeline
    body: Body
    otherwise: Body


@dataclass(frozen=True)
class Jump:
    """break or continue."""

    kind: str


Node: TypeAlias = str | Pipeline | Branch | Jump
Body: TypeAlias = tuple[Node, ...]

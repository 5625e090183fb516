"""Go's templates, as `docker --format` and `docker-machine --format` have them (text/template, and docker's functions).

    {{.Name}}  {{json .}}  {{range .List}}{{.}} {{else}}none{{end}}  {{if eq .State "Running"}}yes{{end}}
    {{index .Labels "a.b"}}  {{join .List ","}}  {{$x := len .List}}{{printf "%-10s|" .Name}}  {{with .X}}{{.Y}}{{end}}

It supports all that docker's documentation of --format uses. `define`, `template`, `block` and `call` are refused.
Unlike Go, it also refuses a field that doesn't exist, because a script would take `<no value>` for an answer.

No library is used: those on PyPI need a Go compiler or are first releases. Lexer, parser, evaluator and functions each
have a file.
"""

from __future__ import annotations

from collections.abc import Mapping

from machine.goformat import walk
from machine.goformat.evaluate import Evaluator
from machine.goformat.parser import parse
from machine.goformat.values import Value

__all__ = ["Format", "Value"]


class Format:
    """A parsed template. Raises Usage for an invalid or unsupported one."""

    def __init__(self, text: str) -> None:
        self._body = parse(text)

    def render(self, data: Value) -> str:
        """Raises Usage for a field that data doesn't have, and where Go fails, as for an index that is out of range."""
        return Evaluator(data).render(self._body)

    def check(self, data: Value) -> None:
        """Raise Usage for a field that data doesn't have; the values don't matter, so they may be empty."""
        walk.check(self._body, data)

    def header(self, headers: Mapping[str, str]) -> str:
        """The template with headings in place of its fields' values."""
        return walk.header(self._body, headers)

    def needs(self, field: str) -> bool:
        """Whether the template may print the field."""
        return walk.needs(self._body, field)

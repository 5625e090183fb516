"""Go's templates, as `docker --format` and `docker-machine --format` have them (text/template, and docker's functions).

    {{.Name}}  {{json .}}  {{range .List}}{{.}} {{else}}none{{end}}  {{if eq .State "Running"}}yes{{end}}
    {{index .Labels "a.b"}}  {{join .List ","}}  {{$x := len .List}}{{printf "%-10s|" .Name}}  {{with .X}}{{.Y}}{{end}}

All that docker's documentation of --format uses is here. `define`, `template`, `block` and `call` are refused, and what
isn't Go's. Unlike Go's, a field that doesn't exist is refused too: a script would take `<no value>` for an answer.

No library: what PyPI has needs a Go compiler or is a first release. The lexer, the parser, the evaluator and the
functions are a file each.
"""

from __future__ import annotations

from collections.abc import Mapping

from machine.goformat import walk
from machine.goformat.evaluate import Evaluator
from machine.goformat.parser import parse
from machine.goformat.values import Value

__all__ = ["Template", "Value"]


class Template:
    """A parsed template. Raises Usage for what isn't supported."""

    def __init__(self, text: str) -> None:
        self._body = parse(text)

    def render(self, data: Value) -> str:
        """Raises Usage for a field that data doesn't have, and for what Go refuses: an index that is out of range."""
        return Evaluator(data).render(self._body)

    def check(self, data: Value) -> None:
        """Raise Usage for a field that data doesn't have; values aren't looked at, so data may be empty ones."""
        walk.check(self._body, data)

    def header(self, headers: Mapping[str, str]) -> str:
        """The template with its fields' headings in the place of their values."""
        return walk.header(self._body, headers)

    def needs(self, field: str) -> bool:
        """Whether the field may be among those that are printed."""
        return walk.needs(self._body, field)

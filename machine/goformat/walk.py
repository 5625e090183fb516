"""Properties of a template that need no rendering: its fields, and its line of headings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from machine.goformat.nodes import Body, Branch, Call, Operand, Path, Pipeline
from machine.goformat.values import Value, lookup, text


def needs(body: Body, field: str) -> bool:
    """Whether the field, or all of the data, may be printed. May be true too often: in a range the dot is an item."""
    return any(path.fields[:1] in {(field,), ()} for path, _ in _paths(body, at_top=True))


def check(body: Body, data: Value) -> None:
    for path, at_top in _paths(body, at_top=True):
        if path.base == "$" or (path.base == "" and at_top):
            lookup(data, path.fields, str(path))


def header(body: Body, headers: Mapping[str, str]) -> str:
    return "".join(_headings(body, headers))


def _headings(body: Body, headers: Mapping[str, str]) -> Iterator[str]:
    for node in body:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Branch):
            # A column for each value that may be shown there.
            own = {**headers, "": _heading(node.pipeline, headers)}
            yield from _headings(node.body, own)
        elif isinstance(node, Pipeline) and not node.names:
            yield _heading(node, headers)


def _heading(pipeline: Pipeline, headers: Mapping[str, str]) -> str:
    """The heading of a pipeline: its first field's, or without a field its text."""
    for path in _in_pipeline(pipeline):
        field = path.fields[-1] if path.fields else ""
        return headers.get(field, field.upper())
    first = pipeline.commands[0]
    return "" if isinstance(first, Path | Call) else text(first.value)


def _paths(body: Body, *, at_top: bool) -> Iterator[tuple[Path, bool]]:
    """Each field's path, and whether the dot there is all of the data."""
    for node in body:
        if isinstance(node, Pipeline):
            yield from ((path, at_top) for path in _in_pipeline(node))
        elif isinstance(node, Branch):
            yield from ((path, at_top) for path in _in_pipeline(node.pipeline))
            yield from _paths(node.body, at_top=at_top and node.kind == "if")
            yield from _paths(node.otherwise, at_top=at_top)


def _in_pipeline(pipeline: Pipeline) -> Iterator[Path]:
    for command in pipeline.commands:
        yield from _in_operand(command)


def _in_operand(operand: Operand) -> Iterator[Path]:
    if isinstance(operand, Path):
        if isinstance(operand.base, Pipeline):
            yield from _in_pipeline(operand.base)
        else:
            yield operand
    elif isinstance(operand, Call):
        for argument in operand.arguments:
            yield from _in_operand(argument)

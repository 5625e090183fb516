"""Tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from machine.goformat import Value

GAP = "   "


def print_columns(rows: list[list[str]]) -> None:
    """Each row a line, its cells under each other; as wide as need be."""
    print_rows(rows, widths(rows))


def widths(rows: list[list[str]]) -> list[int]:
    """How wide the columns of these rows must be."""
    return [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]


def print_rows(rows: Iterable[list[str]], widths: list[int]) -> None:
    for row in rows:
        print(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


def formatted(
    form: str, headers: Mapping[str, str], empty: Mapping[str, Value]
) -> Callable[[Iterable[Mapping[str, Value]]], None]:
    """What prints rows as a Go template has them; with "table" before it, in columns with headings.

    empty: a row that has all fields: one that isn't there is an error also when there is no row. Raises Usage.
    """
    from machine.goformat import Format

    table = form.startswith("table")
    go_format = Format(form.removeprefix("table").strip(" ").replace("\\t", "\t").replace("\\n", "\n"))
    go_format.check(dict(empty))

    def show(rows: Iterable[Mapping[str, Value]]) -> None:
        lines = [go_format.render(dict(row)) for row in rows]
        if table:
            print_columns([line.split("\t") for line in [go_format.header(headers), *lines]])
        else:
            print("".join(f"{line}\n" for line in lines), end="")

    return show

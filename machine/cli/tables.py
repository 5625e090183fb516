"""Tables on stdout."""

from __future__ import annotations

GAP = "   "


def print_columns(rows: list[list[str]]) -> None:
    """Each row a line, its cells under each other; as wide as need be."""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    for row in rows:
        print(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())

"""Rows of a result as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from api.commands.frame import printable


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """One column a key, named by it; numbers to the right. All rows have the keys of the first."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        number = isinstance(value, int | float)
        drawn.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    return drawn


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value)) if value is not None else ""

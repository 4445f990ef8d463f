"""HTML tables: which hold data and which only arrange the page, and the rows of those with data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pipeline.read.builder import ROW_SEPARATOR
from pipeline.read.markup import Element, flat, local
from pipeline.types import BlockKind

_NOT_IN_DATA = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "pre", "table"})
_MAX_CELL_CHARS = 1500
_LEADS = frozenset({"$", "€", "£", "¥", "(", "$(", "US$"})
_TRAILS = frozenset({")", "%", ")%", "%)"})
_AMOUNT = re.compile(r"(?:US)?[$€£¥(\s]*[\d.,\s—–-]+\)?")
_LIST_MARK = re.compile(r"[☐☑☒•·▪■●○◦–—*-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]")


def is_data_table(table: Element) -> bool:
    """Whether rows and columns mean something. A table that arranges the page holds other tables,
    headings, very long cells, or one filled cell a row."""
    if table.get("role") in ("presentation", "none"):
        return False
    if any(local(inner) in _NOT_IN_DATA for inner in table.iterdescendants()):
        return False
    filled = [[len(text) for text in map(flat, cells) if text] for cells in _rows(table)]
    if any(chars > _MAX_CELL_CHARS for row in filled for chars in row):
        return False
    return any(len(row) > 1 for row in filled)


def rows(table: Element, show: Callable[[Element], str]) -> Iterator[tuple[BlockKind, str]]:
    """Each row as ``(kind, text)``, cells joined by " | ".

    Empty cells stay where every row has the same number of cells, so that columns line up; tables
    with spans and spacer cells, as in filings, lose them. Signs in cells of their own ("$", ")",
    "%") rejoin their number, and a row of a mark and a text is a list item.
    """
    grid = [[" ".join(show(cell).split()) for cell in cells] for cells in _rows(table)]
    grid = [row for row in grid if any(row)]
    spans = any(cell.get("colspan", "1") != "1" for cells in _rows(table) for cell in cells)
    if not spans and len({len(row) for row in grid}) == 1:
        used = [column for column in range(len(grid[0])) if any(row[column] for row in grid)]
        grid = [[row[column] for column in used] for row in grid]
    else:
        grid = [[text for text in row if text] for row in grid]
    for row in map(_signs_joined, grid):
        if len(row) == 2 and _LIST_MARK.fullmatch(row[0]):
            yield "list_item", " ".join(row)
        else:
            yield "table_row", ROW_SEPARATOR.join(row)


def _rows(table: Element) -> Iterator[list[Element]]:
    for row in table.iterdescendants():
        if local(row) == "tr":
            yield [cell for cell in row if local(cell) in ("td", "th")]


def _signs_joined(row: list[str]) -> list[str]:
    joined: list[str] = []
    for text in row:
        before = joined[-1] if joined else ""
        if text in _TRAILS and _AMOUNT.fullmatch(before):
            joined[-1] += text
        elif before in _LEADS and before:
            joined[-1] += text if before.endswith("(") else f" {text}"
        else:
            joined.append(text)
    return joined

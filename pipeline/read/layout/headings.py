"""Levels of headings: from the file's own outline where it has one, else from their type."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.read.layout.blocks import PageBlock

_MAX_LEVEL = 6
_PART = 0.6
_HABITUAL = 2

Style = tuple[int, bool, bool]
"""Size in points, whether in capitals, whether bold. Sorted descending: the weightiest first."""


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """A bookmark of the file: ``level`` from 1, ``page`` from 1."""

    title: str
    level: int
    page: int


def ranked(blocks: Sequence[PageBlock], outline: Sequence[OutlineEntry]) -> list[PageBlock]:
    """The blocks, with every heading given a level and blocks that the outline names made headings."""
    found = list(blocks)
    _match(found, outline)
    votes: defaultdict[Style, Counter[int]] = defaultdict(Counter)
    for block in found:
        if block.level:
            votes[_style(block)][block.level] += 1
    known = {style: levels.most_common(1)[0][0] for style, levels in votes.items()}
    fresh = Counter(_style(b) for b in found if b.kind == "heading" and not b.level)
    level = max(known.values(), default=0) + 1
    styles = sorted(fresh.keys() - known, reverse=True)
    crowded = level + len(styles) > _MAX_LEVEL + 1
    for style in styles:
        known[style] = min(level, _MAX_LEVEL)
        level += not crowded or fresh[style] >= _HABITUAL  # among many, one used once is no rank
    return [replace(b, level=known[_style(b)]) if b.kind == "heading" and not b.level else b for b in found]


def _match(blocks: list[PageBlock], outline: Sequence[OutlineEntry]) -> None:
    """Give the outline's levels to the blocks it names, in place."""
    places: defaultdict[int, list[int]] = defaultdict(list)
    for i, block in enumerate(blocks):
        if block.kind in ("heading", "paragraph", "list_item", "table_row"):
            places[block.page].append(i)
    for entry in outline:
        wanted = _letters(entry.title)
        if not wanted:
            continue
        named = [i for i in places[entry.page] if not blocks[i].level and _names(wanted, blocks[i])]
        if named:  # a table of contents on the same page says the same in smaller type
            best = max(named, key=lambda i: (blocks[i].kind == "heading", blocks[i].size, -i))
            level = min(max(entry.level, 1), _MAX_LEVEL)
            blocks[best] = replace(blocks[best], kind="heading", level=level)


def _names(wanted: str, block: PageBlock) -> bool:
    letters = _letters(" ".join(block.lines))
    if letters == wanted:
        return True
    part = letters and (wanted.endswith(letters) or wanted.startswith(letters) or letters.startswith(wanted))
    return bool(
        block.kind == "heading"
        and part
        and min(len(letters), len(wanted)) >= _PART * max(len(letters), len(wanted))
    )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _style(block: PageBlock) -> Style:
    return round(block.size), " ".join(block.lines).isupper(), block.bold

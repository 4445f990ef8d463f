"""Document to atoms: the smallest spans that chunks are made of, and how close neighbours belong.

An atom is a sentence, a heading, a table row, a line of code, or a part of one of these that is larger
than a unit may be: a clause, else a run of words, else a run of tokens.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from pipeline.sentences import Span, line_breaks, sentences
from pipeline.types import Block, Document, Encoding

# Characters that count as one token where a token covers more (one unknown word of 100,000 letters).
CHARS_PER_TOKEN = 32
_CLAUSE = re.compile(r"[,;:][\"'”’»)\]]*(?=\s)|[、，；：،؛]|\s[-–—|](?=\s)|—|\)(?=\s)|\t|\n")
_WHOLE = ("heading", "table_row", "code")
_TIGHT = ("list_item", "table_row")


class Bond(IntEnum):
    """What lies between two neighbouring atoms, the closest first."""

    TOKEN = 0  # within a clause
    CLAUSE = 1
    WHOLE = 2  # within a heading, a table row or a block of code
    HEADED = 3  # between a heading and what it heads
    SENTENCE = 4
    LINE = 5  # between turns, list items or table rows
    BLOCK = 6  # between paragraphs
    SECTION = 7
    TOP = 8  # between sections of the highest level


@dataclass(frozen=True, slots=True)
class Atoms:
    """Parallel lists: spans without surrounding white space, the bond before each, and its size.

    A size is in tokens, at least 1, and at least one for every 32 characters, those of the white space
    before it included. ``firsts`` has one entry
    more: atoms ``[a, b)`` own the tokens ``[firsts[a], firsts[b])``.
    """

    spans: list[Span]
    bonds: list[Bond]
    sizes: list[int]
    firsts: list[int]
    token_ends: list[int]

    def tokens(self, a: int, b: int) -> Span:
        """Tokens of atoms ``[a, b)``; if they own none, the token whose middle they are, if any."""
        first, last = self.firsts[a], self.firsts[b]
        if first == last and first and self.token_ends[first - 1] > self.spans[a][0]:
            first -= 1
        return first, last


def atoms(document: Document, encoding: Encoding, most_tokens: int) -> Atoms:
    """Cut the document; an atom is larger than ``most_tokens`` only if a single character is, or the last one
    with the white space at the end of the text."""
    # Tokens that cover no text may carry (0, 0); a binary search needs starts that never go back.
    starts = np.maximum.accumulate(encoding.offsets[:, 0]).tolist()
    breaks = line_breaks(document.text)
    spans = _natural(document, breaks)
    bonds = _bonds(document, spans, breaks)
    spans, bonds = _divide(document, spans, bonds, starts, most_tokens)
    firsts = _firsts(spans, starts)
    reached = [start for start, _ in spans[:1]] + [end for _, end in spans[:-1]]
    sizes = [
        max(1, last - first, _weight((before, end)))
        for (first, last), before, (_, end) in zip(pairwise(firsts), reached, spans, strict=True)
    ]
    return Atoms(spans, bonds, sizes, firsts, np.maximum.accumulate(encoding.offsets[:, 1]).tolist())


def _weight(span: Span) -> int:
    return -((span[0] - span[1]) // CHARS_PER_TOKEN)


def _firsts(spans: list[Span], starts: list[int]) -> list[int]:
    """Where each span's tokens begin. White space between two spans goes to the later one."""
    if not spans:
        return [0]
    return [0, *(bisect_left(starts, end) for _, end in spans[:-1]), len(starts)]


def _natural(document: Document, breaks: list[int]) -> list[Span]:
    """Sentences, with headings, table rows and lines of code in their place."""
    whole = [b for b in document.blocks if b.kind in _WHOLE]
    edges = {e for b in document.blocks for e in (b.start, b.end)} | {s.start for s in document.sections}
    begins = [b.start for b in whole]

    def is_prose(span: Span) -> bool:
        i = bisect_right(begins, span[0]) - 1
        return i < 0 or span[0] >= whole[i].end

    spans = [s for s in sentences(document.text, {*breaks, *edges}) if is_prose(s)]
    if whole:
        spans.extend(span for block in whole for span in _whole(document.text, block))
        spans.sort()
    return spans


def _whole(text: str, block: Block) -> Iterator[Span]:
    """The block without surrounding white space; code line by line."""
    position = block.start
    lines = text[block.start : block.end].split("\n") if block.kind == "code" else None
    for line in lines if lines is not None else [text[block.start : block.end]]:
        if line.strip():
            yield position + len(line) - len(line.lstrip()), position + len(line.rstrip())
        position += len(line) + 1


def _bonds(document: Document, spans: list[Span], breaks: list[int]) -> list[Bond]:
    """What lies before each span."""
    text, blocks, sections = document.text, document.blocks, document.sections
    begins = [b.start for b in blocks]
    section_starts = [s.start for s in sections]
    top = min((s.level for s in sections), default=0)
    bonds = [Bond.TOP] if spans else []
    before = bisect_right(begins, spans[0][0]) - 1 if spans else -1
    for (start, end), (following, _) in pairwise(spans):
        here = bisect_right(begins, following) - 1
        a, b = bisect_left(section_starts, start), bisect_right(section_starts, following)
        entered = [s for s in sections[a:b] if s.start >= end]
        headed = a < len(sections) and sections[a].start < end
        same = here == before
        kind = blocks[before].kind if before >= 0 and blocks[before].end >= end else "paragraph"
        if same and kind in _WHOLE and following < blocks[here].end:
            bonds.append(Bond.WHOLE)
        elif headed or kind == "heading":
            bonds.append(Bond.HEADED)
        elif entered:
            bonds.append(Bond.TOP if min(s.level for s in entered) == top else Bond.SECTION)
        elif not same:
            tight = kind in _TIGHT and blocks[here].kind == kind
            bonds.append(Bond.LINE if tight else Bond.BLOCK)
        elif text.count("\n", end, following) > 1:
            bonds.append(Bond.BLOCK)
        else:
            i = bisect_left(breaks, end)
            bonds.append(Bond.LINE if i < len(breaks) and breaks[i] < following else Bond.SENTENCE)
        before = here
    return bonds


def _divide(
    document: Document, spans: list[Span], bonds: list[Bond], starts: list[int], most: int
) -> tuple[list[Span], list[Bond]]:
    """The same with every span above ``most`` tokens cut into parts."""
    counts = [b - a for a, b in pairwise(_firsts(spans, starts))]
    whole = [b for b in document.blocks if b.kind in _WHOLE]
    begins = [b.start for b in whole]
    parts: list[Span] = []
    inner: list[Bond] = []
    befores = [0, *(end for _, end in spans)][: len(spans)]
    for before, span, bond, count in zip(befores, spans, bonds, counts, strict=True):
        parts.append(span)
        inner.append(bond)
        if max(count, _weight(span)) <= most:
            continue
        i = bisect_right(begins, span[0]) - 1
        is_whole = i >= 0 and span[0] < whole[i].end
        pieces = list(_parts(document.text, before, span, starts, most))
        parts[-1:] = [piece for piece, _ in pieces]
        inner.extend(Bond.WHOLE if is_whole else cut for _, cut in pieces[1:])
    return parts, inner


def _parts(text: str, before: int, span: Span, starts: list[int], most: int) -> Iterator[tuple[Span, Bond]]:
    """Clauses, and parts of clauses that are still too large, each with the bond before it.

    ``before`` is where the span before ends: tokens of the white space from there are the first part's.
    """
    ends = [m.end() for m in _CLAUSE.finditer(text, *span)]
    owned = before
    for a, b in pairwise([span[0], *ends, span[1]]):
        bond = Bond.CLAUSE
        for start, end in pairwise([a, *_cuts(text, owned, (a, b), starts, most), b]):
            piece = text[start:end]
            left = len(piece) - len(piece.lstrip())
            if left < len(piece):
                owned = start + len(piece.rstrip())
                yield (start + left, owned), bond
                bond = Bond.TOKEN


def _cuts(text: str, owned: int, span: Span, starts: list[int], most: int) -> Iterator[int]:
    """Positions that cut a span into even parts of at most ``most`` tokens, before a word if near.

    The first part owns the tokens from ``owned`` on, which is at most where the span begins.
    """
    a, b = span
    first, last = bisect_left(starts, owned), bisect_left(starts, b)
    while True:
        tokens = last - first
        count = -(-tokens // most)
        if count < 2 and _weight((a, b)) <= most:
            return
        position = a + most * CHARS_PER_TOKEN
        if count > 1:
            step = tokens // count
            near = starts[first + step - step // 2 : first + step + 1]
            words = [p for p in near if p and text[p - 1].isspace()]
            position = min(position, (words or near)[-1])
        position = _before_marks(text, a, position)
        if position <= a:  # one character of many tokens
            beyond = bisect_right(starts, a)
            position = starts[beyond] if beyond < last else b
        if position >= b:
            return
        yield position
        if part := text[a:position].rstrip():  # white space after a part is the next one's
            first = bisect_left(starts, a + len(part))
        a = position


def _before_marks(text: str, a: int, position: int) -> int:
    """Not between a letter and its combining marks or within a joined emoji, unless that goes far."""
    for p in range(min(position, len(text) - 1), max(a, position - 16), -1):
        joined = text[p - 1] == "\u200d" or text[p] == "\u200d" or "\U0001f3fb" <= text[p] <= "\U0001f3ff"
        if not joined and not unicodedata.category(text[p]).startswith("M"):
            return p
    return position

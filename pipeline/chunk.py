"""Document to chunks: passages (what is read) made of units (what is found), by exact offsets.

Units are runs of atoms (sentences and the like, see :mod:`pipeline.atoms`), passages runs of units. Both
are cut where the sum of costs is least: a chunk costs the square of what it lacks to be full, a cut costs
more the closer the things it separates belong together, and a heading inside a chunk costs a little.
That is a shortest path, as Knuth and Plass (1981) break paragraphs into lines, in time linear in the text.

Every character that is not white space lies in exactly one unit and exactly one passage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple

from pipeline.atoms import Atoms, Bond, atoms
from pipeline.errors import ConfigurationError
from pipeline.types import Chunk, ChunkedDocument, ChunkKind, Document, Encoding


class _Costs(NamedTuple):
    """What cutting and not cutting cost at each :class:`Bond`, in its order; an empty chunk costs 1."""

    cut: tuple[float, ...]
    join: tuple[float, ...]


# In order: within a clause, clause, within a whole, after a heading, sentence, line, block, section, top.
_UNIT = _Costs(
    cut=(0.7, 0.3, 0.05, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0),
    join=(0.0, 0.0, 0.0, 0.0, 0.03, 0.1, 0.2, 0.8, 1.0),
)
_PASSAGE = _Costs(
    cut=(0.8, 0.5, 0.6, 0.9, 0.15, 0.09, 0.06, 0.02, 0.0),
    join=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.08, 0.2),
)


@dataclass(frozen=True, slots=True)
class ChunkConfig:
    """Sizes in tokens of the embedder."""

    passage_tokens: int = 128
    """Most tokens of a passage: what is read."""
    unit_tokens: int = 64
    """Most tokens of a unit: what is found."""
    unit_min_tokens: int = 16
    """A shorter unit joins a neighbour where one is near."""

    def __post_init__(self) -> None:
        if not 4 <= self.unit_tokens <= self.passage_tokens <= 100_000:
            raise ConfigurationError(
                f"unit_tokens={self.unit_tokens} does not fit passage_tokens={self.passage_tokens}.",
                remedy="Set 4 <= unit_tokens <= passage_tokens <= 100000.",
            )
        if not 0 <= self.unit_min_tokens <= self.unit_tokens:
            raise ConfigurationError(
                f"unit_min_tokens={self.unit_min_tokens} is not within unit_tokens={self.unit_tokens}.",
                remedy="Set it between 0 and unit_tokens, about a quarter of it.",
            )

    def options(self) -> tuple[str, ...]:
        """Sorted ``key=value`` strings, for a fingerprint."""
        return tuple(sorted(f"{field.name}={getattr(self, field.name)}" for field in fields(self)))


def chunk(document: Document, encoding: Encoding, config: ChunkConfig) -> ChunkedDocument:
    """Cut a document; ``encoding`` is the embedder's tokenisation of ``document.text``.

    A document of nothing but white space has no chunks.
    """
    parts = atoms(document, encoding, config.unit_tokens)
    sizes, bonds = parts.sizes, parts.bonds
    unit_ends = _shortest(sizes, bonds, config.unit_tokens, config.unit_min_tokens, _UNIT)
    firsts = [0, *unit_ends[:-1]]
    unit_sizes = [sum(sizes[a:b]) for a, b in zip(firsts, unit_ends, strict=False)]
    unit_bonds = [bonds[a] for a in firsts[: len(unit_ends)]]
    most = config.passage_tokens
    groups = _shortest(unit_sizes, unit_bonds, most, most, _PASSAGE)
    parents = [bisect_right(groups, i) for i in range(len(unit_ends))]
    passage_ends = [unit_ends[g - 1] for g in groups]
    return ChunkedDocument(
        document,
        encoding,
        passages=_chunks("passage", document, parts, passage_ends, range(len(groups))),
        units=_chunks("unit", document, parts, unit_ends, parents),
    )


def _shortest(
    sizes: Sequence[int], bonds: Sequence[Bond], most: int, enough: int, costs: _Costs
) -> list[int]:
    """Ends of the runs into which things of ``sizes`` are cut at least cost.

    A run sums to at most ``most`` unless it is a single thing; under ``enough`` it pays for what it
    lacks. ``bonds[i]`` is what lies before thing ``i``.
    """
    n = len(sizes)
    total = [0, *accumulate(sizes)]
    joined = [0.0, *accumulate(costs.join[bond] for bond in bonds)]
    best, back = [0.0] * (n + 1), [0] * (n + 1)
    floor = max(enough, 1)
    for j in range(1, n + 1):
        least, at = inf, j - 1
        for i in range(j - 1, -1, -1):
            size = total[j] - total[i]
            if size > most and i < j - 1:
                break
            lack = 1 - size / floor if size < floor else 0.0
            cost = best[i] + lack * lack + joined[j] - joined[i + 1]
            if cost < least:
                least, at = cost, i
        best[j] = least + (costs.cut[bonds[j]] if j < n else 0.0)
        back[j] = at
    ends = []
    while n:
        ends.append(n)
        n = back[n]
    return ends[::-1]


def _chunks(
    kind: ChunkKind, document: Document, parts: Atoms, ends: Sequence[int], parents: Sequence[int]
) -> tuple[Chunk, ...]:
    page_starts = [page.start for page in document.pages]
    paths = _section_paths(document)
    path_starts = [start for start, _ in paths]

    def page(position: int) -> int | None:
        i = bisect_right(page_starts, position) - 1
        return document.pages[max(i, 0)].number if page_starts else None

    chunks = []
    for ordinal, (a, b) in enumerate(pairwise([0, *ends])):
        start, end = parts.spans[a][0], parts.spans[b - 1][1]
        section = paths[bisect_right(path_starts, start) - 1][1]
        chunks.append(
            Chunk(
                kind,
                ordinal,
                parents[ordinal],
                start,
                end,
                *parts.tokens(a, b),
                document.text[start:end],
                section,
                page(start),
                page(end - 1),
            )
        )
    return tuple(chunks)


def _section_paths(document: Document) -> list[tuple[int, str]]:
    """From which position on which path of headings holds: ``(812, "Chapter 3 > Liability")``."""
    paths = [(0, "")]
    inside: list[tuple[int, int, str]] = []  # level, end, title of the sections that are open
    sections = sorted(document.sections, key=lambda s: (s.start, s.level))
    edges = sorted({edge for s in sections for edge in (s.start, s.end)})
    upcoming = iter(sections)
    section = next(upcoming, None)
    for edge in edges:
        inside = [s for s in inside if s[1] > edge]
        while section is not None and section.start == edge:
            inside = [s for s in inside if s[0] < section.level]
            inside.append((section.level, section.end, section.title))
            section = next(upcoming, None)
        paths.append((edge, " > ".join(title for _, _, title in inside)))
    return paths

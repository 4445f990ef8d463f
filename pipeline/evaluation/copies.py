"""Evidence that stands word for word in several places of its document.

Filings and contracts repeat themselves, and a set marks one of the places. A search that shows one copy and
leaves out the others, since they say nothing new, has found what was asked for. So what is found of a copy
counts as found at the place that is marked. A near-duplicate in another document counts if the hit names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.evaluation.dataset import Question
from pipeline.measure import Span
from pipeline.types import Hit, Location

AROUND_CHARS = 40
"""What stands on both sides of a copy must be the same, too: a number or a name alone is no evidence."""

LONGER = 1.1
"""How much longer a near-duplicate may be than the hit that it repeats."""

Copies = Mapping[str, Sequence[tuple[Span, Span]]]
"""By document id: the marked place and another one, as spans of equal length."""


def copies_of(question: Question, texts: Mapping[str, str]) -> Copies:
    """The other places of the evidence; ``texts`` are those of the documents by id."""
    found: dict[str, list[tuple[Span, Span]]] = {}
    for document, spans in question.spans.items():
        text = texts[document]
        for start, end in spans:
            before = min(AROUND_CHARS, start)
            wanted = text[start - before : end + AROUND_CHARS]
            at = text.find(wanted)
            while at >= 0:
                if at != start - before:
                    copy = (at + before, at + before + end - start)
                    found.setdefault(document, []).append(((start, end), copy))
                at = text.find(wanted, at + 1)
    return found


def repeated(hit: Hit) -> tuple[Location, ...]:
    """The places named beside a hit that say what it shows. One that is longer does not count: of the last
    hit within a budget only a part may be shown."""
    return tuple(at for at in hit.also if at.end - at.start <= LONGER * (hit.end - hit.start))


def read_with(hits: Iterable[Hit]) -> dict[str, list[Span]]:
    """What has been read, by document: every hit, and the places that say the same."""
    found: dict[str, list[Span]] = {}
    for hit in hits:
        for at in (hit.location, *repeated(hit)):
            found.setdefault(at.document_id, []).append((at.start, at.end))
    return found


def with_copies(selected: Mapping[str, Sequence[Span]], copies: Copies) -> dict[str, list[Span]]:
    """What is selected, and for each part of a copy in it the same part of the marked place."""
    credited = {document: list(spans) for document, spans in selected.items()}
    for document, places in copies.items():
        for (marked, _), (start, end) in places:
            for a, b in selected.get(document, ()):
                if max(a, start) < min(b, end):
                    moved = marked - start
                    credited[document].append((max(a, start) + moved, min(b, end) + moved))
    return credited

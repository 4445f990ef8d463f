"""Ranked passages become hits: where each one lies, its text, and as much of it as a budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import layers
from pipeline.errors import NotFoundError
from pipeline.filters import And, AnyOf, Equals, Or
from pipeline.fuse import Evidence, Place, Ranked, place_of
from pipeline.ledger import Ledger
from pipeline.records import VersionKey
from pipeline.seams import Embedder, Indexer
from pipeline.sentences import sentences
from pipeline.types import Hit, Location, Query

_READ_AHEAD = 64


class Passages:
    """The passages that one query found."""

    def __init__(
        self, query: Query, indexer: Indexer, ledger: Ledger, embedder: Embedder, evidence: Evidence
    ) -> None:
        self._query = query
        self._indexer = indexer
        self._ledger = ledger
        self._embedder = embedder
        self._payloads: dict[Place, Mapping[str, Any]] = {
            place_of(m.payload): m.payload
            for matches in (*evidence.passages, evidence.passages_lexical)
            for m in matches
        }
        self._best_unit: dict[Place, tuple[int, float]] = {}
        for matches in evidence.units:
            for m in matches:
                place = (m.payload["_document_id"], m.payload["_version"], m.payload["_parent"])
                if place not in self._best_unit or m.score > self._best_unit[place][1]:
                    self._best_unit[place] = (m.payload["_start"], m.score)
        self._focus: dict[tuple[str, int], int] = {}
        self._texts: dict[tuple[str, int], str] = {}

    def hits(self, ranked: Sequence[Ranked]) -> Iterator[Hit]:
        """One hit a passage, in the order given, read only as far as they are asked for."""
        for start in range(0, len(ranked), _READ_AHEAD):
            ahead = ranked[start : start + _READ_AHEAD]
            self._fetch([r for r in ahead if r.place not in self._payloads])
            for candidate in ahead:
                # A passage can vanish between search and look-up, when its document is replaced or deleted.
                if candidate.place in self._payloads:
                    try:
                        hit = self._hit(candidate, self._payloads[candidate.place])
                    except NotFoundError:
                        continue
                    yield hit

    def _fetch(self, missing: Sequence[Ranked]) -> None:
        """Look up passages that only their units were found of."""
        wanted: dict[tuple[str, int], list[int]] = {}
        for r in missing:
            wanted.setdefault((r.document_id, r.version), []).append(r.ordinal)
        if not wanted:
            return
        where = Or(
            tuple(
                And((Equals("_document_id", i), Equals("_version", v), AnyOf("_ordinal", tuple(ordinals))))
                for (i, v), ordinals in wanted.items()
            )
        )
        name = layers.index_name(self._query.tenant, self._query.collection, "passages")
        for _, payload in self._indexer.points(name, where):
            self._payloads[place_of(payload)] = payload

    def _hit(self, candidate: Ranked, payload: Mapping[str, Any]) -> Hit:
        query, start, end = self._query, int(payload["_start"]), int(payload["_end"])
        text = self._text(candidate.document_id, candidate.version)
        key = VersionKey(query.tenant, query.collection, candidate.document_id, candidate.version)
        if candidate.place in self._best_unit:
            self._focus[candidate.document_id, start] = self._best_unit[candidate.place][0]
        return Hit(
            chunk_id=layers.point_id(key, "passages", candidate.ordinal),
            document_id=candidate.document_id,
            version=candidate.version,
            title=payload["_title"],
            text=text[start:end],
            start=start,
            end=end,
            score=candidate.score,
            scores=candidate.scores,
            tokens=int(payload["_tokens"]),
            section=payload["_section"],
            page_start=payload.get("_page_start"),
            page_end=payload.get("_page_end"),
            metadata={name: value for name, value in payload.items() if not name.startswith("_")},
        )

    def _text(self, document_id: str, version: int) -> str:
        """Asked of the ledger once a document, not once a passage."""
        key = document_id, version
        if key not in self._texts:
            query = self._query
            self._texts[key] = self._ledger.load(query.tenant, query.collection, *key).text
        return self._texts[key]

    def trimmed(self, hit: Hit, budget_tokens: int) -> Hit:
        """The hit itself where it fits; else the sentences around its best unit that fit.

        A sentence that is longer than the whole budget is cut at a token.
        """
        if hit.tokens <= budget_tokens:
            return hit
        offsets = self._embedder.encode(hit.text).offsets
        focus = self._focus.get((hit.document_id, hit.start), hit.start) - hit.start
        spans = sentences(hit.text)
        sizes = np.diff(np.searchsorted(offsets[:, 0], [*(start for start, _ in spans), len(hit.text)]))
        first = last = next((i for i, (_, end) in enumerate(spans) if end > focus), 0)
        used = int(sizes[first])
        if used > budget_tokens:
            token = int(np.searchsorted(offsets[:, 0], spans[first][0])) + budget_tokens - 1
            return _cut(hit, spans[first][0], int(offsets[token, 1]), budget_tokens)
        while True:  # what follows explains more often than what precedes, so it is taken first
            if last + 1 < len(spans) and used + sizes[last + 1] <= budget_tokens:
                last += 1
                used += int(sizes[last])
            elif first > 0 and used + sizes[first - 1] <= budget_tokens:
                first -= 1
                used += int(sizes[first])
            else:
                return _cut(hit, spans[first][0], spans[last][1], used)

    def joined(self, hit: Hit, following: Hit, most_tokens: int) -> Hit | None:
        """Both as one, if they are neighbours in the document and short enough together, else None."""
        early, late = sorted((hit, following), key=lambda h: h.start)
        if hit.tokens + following.tokens > most_tokens or not self._touch(early, late):
            return None
        return replace(
            hit,
            chunk_id=early.chunk_id,
            text=self._text(hit.document_id, hit.version)[early.start : late.end],
            start=early.start,
            end=late.end,
            tokens=hit.tokens + following.tokens,
            section=early.section,
            **_pages(early, late),
        )

    def joined_locations(self, found: Sequence[Location]) -> tuple[Location, ...]:
        """Locations with neighbours in one document joined, best first: the passages of a clause are one."""
        joined: list[Location] = []
        for at in sorted(found, key=lambda at: (at.document_id, at.version, at.start)):
            before = joined[-1] if joined else None
            if before is None or not self._touch(before, at):
                joined.append(at)
                continue
            end, score = max(before.end, at.end), max(before.score, at.score)
            joined[-1] = replace(before, end=end, score=score, **_pages(before, at))
        return tuple(sorted(joined, key=lambda at: (-at.score, at.document_id, at.start)))

    def _touch(self, early: Hit | Location, late: Hit | Location) -> bool:
        """Whether they stand in one document with nothing but white space between them."""
        if (early.document_id, early.version) != (late.document_id, late.version):
            return False
        return not self._text(late.document_id, late.version)[early.end : late.start].strip()


def _pages(early: Hit | Location, late: Hit | Location) -> dict[str, Any]:
    """The pages of both together, as far as they have any."""
    pages = [p for one in (early, late) for p in (one.page_start, one.page_end) if p is not None]
    return {"page_start": min(pages, default=None), "page_end": max(pages, default=None)}


def _cut(hit: Hit, start: int, end: int, tokens: int) -> Hit:
    return replace(hit, text=hit.text[start:end], start=hit.start + start, end=hit.start + end, tokens=tokens)

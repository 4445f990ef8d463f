"""The search half of the read flow: Query -> Hits.

A question is cut into sentences; each is looked for among units and passages by meaning, and the whole
question among passages and documents by words. :mod:`pipeline.fuse` makes one ranking of passages of it,
:mod:`pipeline.regularize` lifts what resembles the best, near-duplicates are told of beside the passage they
repeat, neighbours are joined, and the token budget is kept.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline import filters, layers
from pipeline.compatibility import require_same
from pipeline.duplicates import Distinct
from pipeline.errors import IndexingError, InvalidRequestError, LimitExceededError
from pipeline.fuse import Evidence, Ranked, Whole, best_first, fuse, place_of
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser
from pipeline.metadata import encodable
from pipeline.passages import Passages
from pipeline.records import VersionKey
from pipeline.regularize import Candidate, regularized
from pipeline.retrieval_config import RetrievalConfig
from pipeline.seams import Embedder, Indexer, IndexSearch
from pipeline.sentences import sentences
from pipeline.types import Hit, Location, Match, Query, Retrieval

__all__ = ["Findings", "RetrievalConfig", "Retriever", "query_parts"]

MIN_PART_WORDS = 3
_SWITCHES = 2  # a search begins again if its collection was indexed anew meanwhile
MIN_TRIMMED_TOKENS = 16  # less than this of a passage says nothing

# What users may filter by besides their own metadata.
OWN_FIELDS: Mapping[str, str] = {"_document_id": "keyword", "_title": "keyword"}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found for one query: evidence by search, and every passage in it, best first."""

    evidence: Evidence
    ranked: tuple[Ranked, ...]
    timings: Mapping[str, float]


class Retriever:
    """Searches the collections of one ledger and one index. Thread-safe if its parts are."""

    def __init__(
        self,
        embedder: Embedder,
        indexer: Indexer,
        ledger: Ledger,
        analyser: Analyser,
        config: RetrievalConfig | None = None,
    ) -> None:
        self._embedder = embedder
        self._indexer = indexer
        self._ledger = ledger
        self._analyser = analyser
        self._config = config or RetrievalConfig()
        self._fusion = self._config.as_fusion()
        self._regularization = self._config.as_regularization()

    def search(self, query: Query) -> Retrieval:
        """The best passages, best first.

        Raises InvalidRequestError or LimitExceededError for an empty or too long question, a ``top_k``
        or a budget out of range; FilterError; NotFoundError for an unknown collection or document; and
        FingerprintMismatchError when the collection was made with another embedder.
        """
        return self.select(query, self.find(query))

    def find(self, query: Query) -> Findings:
        """Everything that :meth:`select` chooses from. Raises what :meth:`search` raises.

        Several selections (other budgets, another ``top_k`` up to that of the query) can be made of it.
        """
        self._check(query)
        for _ in range(_SWITCHES):
            before = self._ledger.collection(query.tenant, query.collection)
            try:
                found = self._find(query)
            except IndexingError:
                if self._ledger.collection(query.tenant, query.collection) == before:
                    raise
            else:
                if self._ledger.collection(query.tenant, query.collection) == before:
                    return found
        return self._find(query)

    def _find(self, query: Query) -> Findings:
        """One attempt; the collection may be switched to a new index in the middle of it."""
        timings: dict[str, float] = {}
        where = self._where(query)
        with _timed(timings, "embed"):
            parts = self._parts(query.text)
            vectors = self._embedder.embed_queries(parts).vectors
        with _timed(timings, "search"):
            evidence = self._gather(query, vectors, where)
        with _timed(timings, "fuse"):
            ranked = self.rank(query, evidence)
        return Findings(evidence, ranked, timings)

    def rank(self, query: Query, evidence: Evidence) -> tuple[Ranked, ...]:
        """Passages of live versions, best first by this retriever's fusion and regularisation."""
        live = self._live(query, evidence)
        ranked = fuse(evidence, self._fusion, live)
        ranked = [r for r in ranked if (r.document_id, r.version) in live]
        return tuple(self._regularized(query, evidence, ranked, live))

    def select(self, query: Query, found: Findings) -> Retrieval:
        """The best passages of what was found, as many as ``query`` asks for."""
        timings = dict(found.timings)
        with _timed(timings, "load"):
            hits = self._select(query, found.ranked, found.evidence)
        return Retrieval(tuple(hits), timings)

    def _check(self, query: Query) -> None:
        config = self._config
        if not query.text.strip():
            raise InvalidRequestError("The query is empty.", remedy="Ask a question.")
        if not encodable(query.text):
            raise InvalidRequestError("The query is not valid Unicode.", remedy="Send it in UTF-8.")
        if len(query.text) > config.max_query_chars:
            raise LimitExceededError(
                f"The query has {len(query.text):,} characters; the limit is {config.max_query_chars:,}.",
                remedy="Shorten it, or raise retrieval.max_query_chars.",
            )
        if not 1 <= query.top_k <= config.max_top_k:
            raise InvalidRequestError(
                f"top_k is {query.top_k}.", remedy=f"Set it between 1 and {config.max_top_k}."
            )
        if query.budget_tokens is not None and query.budget_tokens < 1:
            raise InvalidRequestError(f"budget_tokens is {query.budget_tokens}.", remedy="Set 1 or more.")

    def _parts(self, text: str) -> list[str]:
        """Pieces of the question that have at least one token."""
        parts = query_parts(text, self._config.max_query_sentences)
        parts = [part for part in parts if len(self._embedder.encode(part))]
        if not parts:
            raise InvalidRequestError(
                f"The query {text[:40]!r} has no words.", remedy="Ask a question in words."
            )
        return parts

    def _where(self, query: Query) -> filters.Filter | None:
        """The query's filter and scope, checked against what the collection has."""
        record = self._ledger.collection(query.tenant, query.collection)
        require_same(record, self._embedder, self._analyser)
        wanted: list[filters.Filter] = []
        if query.document_id is not None:
            self._ledger.document(query.tenant, query.collection, query.document_id)
            wanted.append(filters.Equals("_document_id", query.document_id))
        if query.filter:
            chosen = filters.parse(query.filter)
            known = self._ledger.metadata_fields(query.tenant, query.collection)
            filters.check_fields(chosen, {**known, **OWN_FIELDS})
            wanted.append(chosen)
        if not wanted:
            return None
        return wanted[0] if len(wanted) == 1 else filters.And(tuple(wanted))

    def _gather(self, query: Query, vectors: Any, where: filters.Filter | None) -> Evidence:  # noqa: ANN401 - float32 (sentences, dim)
        config = self._config
        words = self._analyser.query_vector(query.text)
        enough = 2 * query.top_k
        units = [IndexSearch(max(config.unit_candidates, enough), dense=v, filter=where) for v in vectors]
        limit = max(config.passage_candidates, enough)
        passages = [IndexSearch(limit, dense=v, filter=where) for v in vectors]
        lexical = [IndexSearch(limit, sparse=words, filter=where)] if len(words.indices) else []
        documents = [replace(search, limit=config.document_candidates) for search in lexical]
        by_passage = self._search(query, "passages", passages + lexical)
        by_document = self._search(query, "documents", documents) if documents else []
        return Evidence(
            units=self._search(query, "units", units),
            passages=by_passage[: len(passages)],
            passages_lexical=by_passage[-1] if lexical else [],
            documents_lexical=by_document[0] if by_document else [],
            query_weight=float(words.values.sum()),
            query_words=self._analyser.length(query.text),
        )

    def _search(
        self, query: Query, layer: layers.Layer, searches: Sequence[IndexSearch]
    ) -> list[list[Match]]:
        return self._indexer.search(layers.index_name(query.tenant, query.collection, layer), searches)

    def _live(self, query: Query, evidence: Evidence) -> dict[Whole, int]:
        """The live versions of documents of which something was found, with how many passages they have. The
        index may still have points of versions that were replaced or deleted."""
        searches = (*evidence.units, *evidence.passages, evidence.passages_lexical)
        ids = {match.payload["_document_id"] for matches in searches for match in matches}
        live = self._ledger.live_versions(query.tenant, query.collection, list(ids))
        return {(document, found.version): found.passages for document, found in live.items()}

    def _regularized(
        self, query: Query, evidence: Evidence, ranked: list[Ranked], live: Mapping[Whole, int]
    ) -> list[Ranked]:
        """With scores of the best regularised; what a score rose by is told among its parts."""
        best = ranked[: self._regularization.candidates]
        if not self._regularization.share or len({r.document_id for r in best}) < 2:
            return ranked
        ids = _passage_ids(query, evidence, best)
        vectors = self._indexer.vectors(layers.index_name(query.tenant, query.collection, "passages"), ids)
        at = [n for n, point in enumerate(ids) if point in vectors]  # not of points that just vanished
        if not at:
            return ranked
        found = [
            Candidate(r.score, vectors[ids[n]], r.document_id, live[r.document_id, r.version])
            for n, r in ((n, best[n]) for n in at)
        ]
        scores = regularized(found, self._regularization)
        for n, score in zip(at, scores.tolist(), strict=True):
            rise = score - best[n].score
            if rise:
                best[n] = best[n]._replace(score=score, scores={**best[n].scores, "regularization": rise})
        return [*sorted(best, key=best_first), *ranked[len(best) :]]

    def _select(self, query: Query, ranked: Sequence[Ranked], evidence: Evidence) -> list[Hit]:
        """The best ``top_k`` within the budget: near-duplicates named beside the hit that they repeat,
        neighbours in rank joined."""
        passages = Passages(query, self._indexer, self._ledger, self._embedder, evidence)
        hits: list[Hit] = []
        distinct = Distinct()
        taken_by: list[int] = []  # the hit that each distinct text went into
        also: dict[int, list[Location]] = defaultdict(list)
        left = query.budget_tokens
        for hit in passages.hits(ranked):
            twin = distinct.twin(hit.text)
            if twin is not None:
                also[taken_by[twin]].append(hit.location)
                continue
            if left is not None and hits and left < MIN_TRIMMED_TOKENS:
                break
            if left is not None:
                fitting = passages.trimmed(hit, left)
                left -= fitting.tokens
            else:
                fitting = hit
            joined = passages.joined(hits[-1], fitting, self._config.max_merged_tokens) if hits else None
            if joined is not None:
                hits[-1] = joined
            elif len(hits) == query.top_k:
                break
            else:
                hits.append(fitting)
            taken_by.append(len(hits) - 1)
        return [
            replace(hit, also=passages.joined_locations(also[n])) if n in also else hit
            for n, hit in enumerate(hits)
        ]


def query_parts(text: str, most: int) -> list[str]:
    """The sentences of a question, very short ones with their neighbour, as at most ``most`` pieces."""
    pieces: list[str] = []
    for start, end in sentences(text):
        piece = text[start:end]
        if pieces and min(len(piece.split()), len(pieces[-1].split())) < MIN_PART_WORDS:
            pieces[-1] = f"{pieces[-1]} {piece}"
        else:
            pieces.append(piece)
    size = -(-len(pieces) // most)
    return [" ".join(pieces[i : i + size]) for i in range(0, len(pieces), size)]


def _passage_ids(query: Query, evidence: Evidence, ranked: Sequence[Ranked]) -> list[str]:
    """Ids of the points of passages, of which some were found and others only their units."""
    searches = (*evidence.passages, evidence.passages_lexical)
    found = {place_of(match.payload): match.id for matches in searches for match in matches}
    ids = []
    for r in ranked:
        key = VersionKey(query.tenant, query.collection, r.document_id, r.version)
        ids.append(found[r.place] if r.place in found else layers.point_id(key, "passages", r.ordinal))
    return ids


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start

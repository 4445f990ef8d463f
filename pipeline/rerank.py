"""A retriever whose hits a reranker puts in order: a wrapper around the seam, not a stage inside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from pipeline.retrieve import Findings, Retriever
from pipeline.seams import Reranker
from pipeline.types import Query, Retrieval


@runtime_checkable
class Searching(Protocol):
    """Finds passages; see :mod:`pipeline.retrieve`."""

    def search(self, query: Query) -> Retrieval:
        """Hits best first."""
        ...


class Reranked:
    """Searches, and reranks what was found."""

    def __init__(self, retriever: Retriever, reranker: Callable[[], Reranker]) -> None:
        """``reranker`` is asked for at the first search, since it may have to load a model."""
        self._retriever = retriever
        self._reranker = reranker

    def search(self, query: Query) -> Retrieval:
        """Hits best first by the reranker, each with the scores of every stage; ``rerank`` among the timings.

        Raises what retrieval and the reranker raise.
        """
        return self.select(query, self.find(query))

    def find(self, query: Query) -> Findings:
        """As the retriever's."""
        return self._retriever.find(query)

    def select(self, query: Query, found: Findings) -> Retrieval:
        """As the retriever's, reranked."""
        selected = self._retriever.select(query, found)
        began = time.perf_counter()
        hits = self._reranker().rerank(query.text, selected.hits)
        timings = {**selected.timings, "rerank": time.perf_counter() - began}
        return replace(selected, hits=tuple(hits), timings=timings)

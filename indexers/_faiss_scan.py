"""Searching one segment: exactly where few rows may be found, else among what FAISS proposes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers._faiss_lists import FlatOnGpu, Kind, Lists
from indexers._faiss_segments import LISTS, Dead, Segment

_QUERIES = 64
_ROWS = 65_536
_COARSE = 4  # one byte for eight dimensions orders less well, so more candidates are scored again

Scored = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Spec:
    """How segments are searched. Up to ``exact_below_points`` rows that may be found are scanned."""

    kind: Kind
    exact_below_points: int
    nprobe: int
    oversample: int
    gpu_count: int
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, the rows of it that are deleted, and what proposes candidates if anything does."""

    segment: Segment
    dead: Dead
    alive: int
    spec: Spec
    lists: Lists | None = None
    flat: FlatOnGpu | None = None

    @classmethod
    def of(cls, segment: Segment, dead: Dead, spec: Spec) -> Part:
        """With its lists, if there is a file of them."""
        lists = flat = None
        if (segment.path / LISTS).exists():
            lists = Lists(segment.path / LISTS, len(segment), spec.gpu_count)
        elif spec.kind == "flat" and spec.gpu_count:
            flat = FlatOnGpu(segment.vectors, spec.gpu_count)
        return cls(segment, dead, len(segment) - int(dead.sum()), spec, lists, flat)

    def without(self, doomed: NDArray[np.bool_]) -> Part:
        """The same with these rows deleted too."""
        dead = self.dead | doomed
        return replace(self, dead=dead, alive=len(self.segment) - int(dead.sum()))

    def nearest(
        self, queries: NDArray[np.float32], limit: int, where: Mapping[str, Any] | None
    ) -> Iterator[Scored]:
        """For each query ``(queries, dim)`` the rows with the highest scores and those scores, unordered."""
        allowed = None if where is None else self.segment.columns.select(where)
        if allowed is not None:
            allowed &= ~self.dead
        elif self.alive < len(self.segment):
            allowed = ~self.dead
        count = self.alive if where is None or allowed is None else int(allowed.sum())
        most = limit * self.spec.oversample * (_COARSE if self.spec.kind == "ivf_pq" else 1)
        for start in range(0, len(queries), _QUERIES):
            block = np.ascontiguousarray(queries[start : start + _QUERIES])
            if self.lists is not None and count > max(self.spec.exact_below_points, most):
                proposed = self.lists.candidates(block, most, self._probes(count), allowed)
                yield from self._rescored(block, proposed, limit)
            elif self.flat is not None and allowed is None and most < 2048:
                yield from self._rescored(block, self.flat.candidates(block, most), limit)
            else:
                rows = None if allowed is None else np.flatnonzero(allowed)
                yield from self._scanned(block, rows, limit)

    def _probes(self, count: int) -> int:
        """More lists where a filter leaves few rows in each of them."""
        share = max(count / len(self.segment), 1e-3)
        return int(np.ceil(self.spec.nprobe / np.sqrt(share)))

    def _rescored(
        self, queries: NDArray[np.float32], proposed: NDArray[np.int64], limit: int
    ) -> Iterator[Scored]:
        for query, rows in zip(queries, proposed, strict=True):
            found = np.sort(rows[rows >= 0])
            yield _best(found, self.segment.vectors[found] @ query, limit)

    def _scanned(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64] | None, limit: int
    ) -> Iterator[Scored]:
        count = len(self.segment) if rows is None else len(rows)
        best: list[Scored] = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        for start in range(0, count, _ROWS):
            end = min(start + _ROWS, count)
            these = np.arange(start, end) if rows is None else rows[start:end]
            vectors = self.segment.vectors[start:end] if rows is None else self.segment.vectors[these]
            for i, scores in enumerate(queries @ vectors.T):
                (rows_before, scores_before), (kept, kept_scores) = best[i], _best(these, scores, limit)
                joined = np.concatenate([rows_before, kept]), np.concatenate([scores_before, kept_scores])
                best[i] = _best(*joined, limit)
        yield from best


def _best(rows: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Scored:
    if len(rows) <= limit:
        return rows, scores
    chosen = np.argpartition(-scores, limit - 1)[:limit]
    return rows[chosen], scores[chosen]

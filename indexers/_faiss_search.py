"""Searching a whole copy: its segments, and exactly what is only in memory yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexers._faiss_copy import Copy, Fresh
from indexers._faiss_scan import Part
from indexers._projection import condition
from pipeline.filters import Filter, matches
from pipeline.seams import IndexSearch
from pipeline.types import Match


class _Found(NamedTuple):
    """Orders as matches do: higher scores first, equal ones by id."""

    negative: float
    id: str
    payload: bytes | str


def search_copy(copy: Copy, searches: Sequence[IndexSearch]) -> list[list[Match]]:
    """Matches best first, one list a search; those with equal filters are looked for together."""
    parts, fresh = copy.snapshot()
    groups: dict[tuple[Filter | None, int], list[int]] = {}
    for i, search in enumerate(searches):
        groups.setdefault((search.filter, search.limit), []).append(i)
    answers: list[list[Match]] = [[] for _ in searches]
    for (where, limit), places in groups.items():
        queries = np.stack([np.asarray(searches[i].dense, np.float32) for i in places])
        found: list[list[_Found]] = [[] for _ in places]
        for part in parts:
            _in_part(found, part, queries, limit, where)
        if fresh:
            _in_memory(found, fresh, queries, limit, where)
        for i, mine in zip(places, found, strict=True):
            mine.sort()
            answers[i] = [Match(each.id, -each.negative, json.loads(each.payload)) for each in mine[:limit]]
    return answers


def _in_part(
    found: list[list[_Found]], part: Part, queries: np.ndarray, limit: int, where: Filter | None
) -> None:
    if part.alive:
        nearest = part.nearest(queries, limit, None if where is None else condition(where))
        segment = part.segment
        for mine, (rows, scores) in zip(found, nearest, strict=True):
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                mine.append(_Found(-score, segment.id(row), segment.text(row)))


def _in_memory(
    found: list[list[_Found]],
    fresh: dict[str, Fresh],
    queries: np.ndarray,
    limit: int,
    where: Filter | None,
) -> None:
    points = [(key, point) for key, point in fresh.items() if where is None or matches(where, point.payload)]
    if not points:
        return
    scores = queries @ np.stack([point.vector for _, point in points]).T
    most = min(limit, len(points))
    for mine, row in zip(found, scores, strict=True):
        for at in np.argpartition(-row, most - 1)[:most].tolist():
            mine.append(_Found(-float(row[at]), points[at][0], points[at][1].text))

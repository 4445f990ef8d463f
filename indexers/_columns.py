"""Filters over arrays: which rows of a table of points match, without reading their payloads.

The same facts and numbers that Qdrant indexes (:mod:`indexers._projection`), as sorted columns that can be
mapped into memory. A condition is two binary searches; combinations are operations on boolean arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers._projection import FACTS, NUMBER_PREFIX

Rows = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Columns:
    """``facts`` int64 ascending with the row of each in ``fact_rows``; the numbers of every key lie
    ascending in ``values[start:end]`` with their rows, as ``spans`` says."""

    size: int
    facts: NDArray[np.int64]
    fact_rows: NDArray[np.int32]
    values: NDArray[np.float64]
    value_rows: NDArray[np.int32]
    spans: Mapping[str, tuple[int, int]]

    def select(self, where: Mapping[str, Any]) -> Rows:
        """Which rows match a condition as :func:`indexers._projection.condition` writes it."""
        if "must" in where:
            return self._all(where["must"])
        if "should" in where:
            return ~self._none(where["should"])
        if "must_not" in where:
            return self._none(where["must_not"])
        found = np.zeros(self.size, np.bool_)
        if "is_empty" in where:
            start, end = self.spans.get(where["is_empty"]["key"], (0, 0))
            found[self.value_rows[start:end]] = True
            return ~found
        if "range" in where:
            found[self._within(where["key"], where["range"])] = True
        elif "match" in where:
            match = where["match"]
            for fact in match["any"] if "any" in match else [match["value"]]:
                start = np.searchsorted(self.facts, fact, "left")
                end = np.searchsorted(self.facts, fact, "right")
                found[self.fact_rows[start:end]] = True
        return found  # nothing for {"has_id": []}

    def _all(self, parts: Sequence[Mapping[str, Any]]) -> Rows:
        found = np.ones(self.size, np.bool_)
        for part in parts:
            found &= self.select(part)
        return found

    def _none(self, parts: Sequence[Mapping[str, Any]]) -> Rows:
        found = np.zeros(self.size, np.bool_)
        for part in parts:
            found |= self.select(part)
        return ~found

    def _within(self, key: str, bounds: Mapping[str, float]) -> NDArray[np.int32]:
        first, last = self.spans.get(key, (0, 0))
        values = self.values[first:last]
        start, end = 0, len(values)
        for bound, limit in bounds.items():
            after = bound in ("gt", "lte")
            at = int(np.searchsorted(values, limit, "right" if after else "left"))
            start, end = (max(start, at), end) if bound.startswith("g") else (start, min(end, at))
        return self.value_rows[first + start : first + max(start, end)]


class ColumnsWriter:
    """Collects the columns of rows that come one after the other."""

    def __init__(self) -> None:
        self._size = 0
        self._facts = array("q")
        self._fact_rows = array("i")
        self._numbers: dict[str, tuple[array[float], array[int]]] = {}

    def add(self, stored: Mapping[str, Any]) -> None:
        """The next row, as :func:`indexers._projection.record` made it."""
        row = self._size
        self._size += 1
        self._facts.extend(stored[FACTS])
        self._fact_rows.extend([row] * len(stored[FACTS]))
        for key, value in stored.items():
            if key.startswith(NUMBER_PREFIX):
                values, rows = self._numbers.setdefault(key, (array("d"), array("i")))
                numbers = value if isinstance(value, list) else [value]
                values.extend(numbers)
                rows.extend([row] * len(numbers))

    def columns(self) -> Columns:
        """All of them, sorted."""
        numbers = {
            key: (np.frombuffer(values, np.float64), np.frombuffer(rows, np.int32))
            for key, (values, rows) in self._numbers.items()
        }
        facts, rows = np.frombuffer(self._facts, np.int64), np.frombuffer(self._fact_rows, np.int32)
        return _sorted(self._size, facts, rows, numbers)


def merged(parts: Sequence[tuple[Columns, NDArray[np.int32]]], size: int) -> Columns:
    """The columns of several tables as one of ``size`` rows. With each comes the new number of every row,
    -1 for one that is left out."""
    facts, fact_rows = [], []
    numbers: dict[str, tuple[list[NDArray[np.float64]], list[NDArray[np.int32]]]] = {}
    for columns, places in parts:
        rows = places[columns.fact_rows]
        facts.append(columns.facts[rows >= 0])
        fact_rows.append(rows[rows >= 0])
        for key, (start, end) in columns.spans.items():
            rows = places[columns.value_rows[start:end]]
            values, kept = numbers.setdefault(key, ([], []))
            values.append(columns.values[start:end][rows >= 0])
            kept.append(rows[rows >= 0])
    joined = {key: (np.concatenate(v), np.concatenate(r)) for key, (v, r) in numbers.items()}
    return _sorted(size, np.concatenate(facts), np.concatenate(fact_rows), joined)


def _sorted(
    size: int,
    facts: NDArray[np.int64],
    fact_rows: NDArray[np.int32],
    numbers: Mapping[str, tuple[NDArray[np.float64], NDArray[np.int32]]],
) -> Columns:
    order = np.argsort(facts, kind="stable")
    spans: dict[str, tuple[int, int]] = {}
    values: list[NDArray[np.float64]] = [np.empty(0, np.float64)]
    rows: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    start = 0
    for key, (found, at) in numbers.items():
        if len(found):
            by_value = np.argsort(found, kind="stable")
            values.append(found[by_value])
            rows.append(at[by_value])
            spans[key] = (start, start + len(found))
            start += len(found)
    return Columns(size, facts[order], fact_rows[order], np.concatenate(values), np.concatenate(rows), spans)

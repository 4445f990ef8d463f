"""Payloads of points that searches found or that were written lately, kept beside the engine's process.

Reading a payload from the engine's files and carrying it over costs as much as finding the point among
thousands, questions about the same documents find the same points, and new documents are asked about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from indexers._edge_kept import Kept, key_of

Stored = tuple[str, Mapping[str, Any]]  # id, payload

_MOST = 32_768  # about a kilobyte each


class Payloads(Kept[Stored]):
    """The most recently used payloads of all indexes. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        super().__init__(most)

    def written(self, name: str, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Keep points that were written, with payloads as JSON, while nobody else can write; as far as there
        is room, so that storing much does not push out what is asked about."""
        with self._lock:
            room = max(0, self._most - len(self._kept))
            for point, text in islice(zip(ids, texts, strict=True), room):
                key = name, key_of(point)
                self._kept[key] = point, json.loads(text)
                self._kept.move_to_end(key, last=False)

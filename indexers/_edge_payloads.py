"""Payloads of points that searches found or that were written lately, kept beside the engine's process.

Reading a payload from the engine's files and carrying it over costs as much as finding the point among
thousands, questions about the same documents find the same points, and new documents are asked about. What is
kept never outlives a write of its point: whoever writes does so inside :meth:`Payloads.changing`.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

KEY_BYTES = 16  # an id as the engine's process sends it
Stored = tuple[str, Mapping[str, Any]]  # id, payload
Fetch = Callable[[Sequence[bytes]], Mapping[bytes, Stored]]

_MOST = 32_768  # about a kilobyte each


def key_of(point: str) -> bytes:
    """The bytes of a point's id. They sort as ids do."""
    return uuid.UUID(point).bytes


def keys_in(buffer: memoryview) -> list[bytes]:
    """Keys that lie one after the other."""
    return [bytes(buffer[i : i + KEY_BYTES]) for i in range(0, len(buffer), KEY_BYTES)]


class Payloads:
    """The most recently used payloads of all indexes. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, bytes], Stored] = OrderedDict()
        self._writes: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, name: str, keys: Iterable[bytes], fetch: Fetch) -> dict[bytes, Stored]:
        """Points by key, without those that are gone. ``fetch`` is asked for what is not kept; what it gives
        is kept unless the index was written to meanwhile."""
        found: dict[bytes, Stored] = {}
        missing = []
        with self._lock:
            writes = self._writes.get(name, 0)
            for point in dict.fromkeys(keys):
                kept = self._kept.get((name, point))
                if kept is None:
                    missing.append(point)
                else:
                    self._kept.move_to_end((name, point))
                    found[point] = kept
        if missing:
            fetched = fetch(missing)
            found |= fetched
            with self._lock:
                if self._writes.get(name, 0) == writes:
                    self._kept |= {(name, point): stored for point, stored in fetched.items()}
                    while len(self._kept) > self._most:
                        self._kept.popitem(last=False)
        return found

    @contextmanager
    def changing(self, name: str, ids: Sequence[str] | None = None) -> Iterator[None]:
        """Around a write of these points, or of any of the index: forgets them before it and after it, also
        where it failed, since it may have taken place."""
        self._forget(name, ids)
        try:
            yield
        finally:
            self._forget(name, ids)

    def written(self, name: str, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Keep points that were written, with payloads as JSON, while nobody else can write; as far as there
        is room, so that storing much does not push out what is asked about."""
        with self._lock:
            room = max(0, self._most - len(self._kept))
            for point, text in islice(zip(ids, texts, strict=True), room):
                key = name, key_of(point)
                self._kept[key] = point, json.loads(text)
                self._kept.move_to_end(key, last=False)

    def _forget(self, name: str, ids: Sequence[str] | None) -> None:
        with self._lock:
            self._writes[name] = self._writes.get(name, 0) + 1
            keys = (
                [key for key in self._kept if key[0] == name]
                if ids is None
                else [(name, key_of(i)) for i in ids]
            )
            for key in keys:
                self._kept.pop(key, None)

"""What was read of points lately, kept beside the engine's process.

What is kept never outlives a write of its point: whoever writes does so inside :meth:`Kept.changing`.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

KEY_BYTES = 16  # an id as the engine's process sends it


def key_of(point: str) -> bytes:
    """The bytes of a point's id. They sort as ids do."""
    return uuid.UUID(point).bytes


def keys_in(buffer: memoryview) -> list[bytes]:
    """Keys that lie one after the other."""
    return [bytes(buffer[i : i + KEY_BYTES]) for i in range(0, len(buffer), KEY_BYTES)]


class Kept(Generic[T]):
    """One thing of each of the most recently used points of all indexes. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, bytes], T] = OrderedDict()
        self._writes: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(
        self, name: str, keys: Iterable[bytes], fetch: Callable[[Sequence[bytes]], Mapping[bytes, T]]
    ) -> dict[bytes, T]:
        """What is known of points, by key, without those that are gone. ``fetch`` is asked for what is not
        kept; what it gives is kept unless the index was written to meanwhile."""
        found: dict[bytes, T] = {}
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
                    self._kept |= {(name, point): one for point, one in fetched.items()}
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

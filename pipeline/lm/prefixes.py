"""What earlier requests made the network read, kept so that the same beginning is not read twice.

Requests about the same documents share long beginnings of their prompts, turns of one conversation nearly
all. States of one tenant are never used for another: how long a prompt takes would otherwise tell what
others have asked.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import Cache

from pipeline.lm import kv_cache

FEWEST_TOKENS = 16
"""A shared beginning shorter than this is read again: copying it would save nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    tenant: str
    ids: tuple[int, ...]
    cache: Cache
    bytes: int


class PrefixStore:
    """The most recently used caches within a budget of bytes. Safe for several threads.

    A stored cache is only ever read: a request gets a copy of the part that it shares, so that any number
    of requests can begin with the same states at once.
    """

    def __init__(self, budget_bytes: int) -> None:
        """``budget_bytes`` 0 keeps nothing."""
        self._budget_bytes = budget_bytes
        self._kept: list[_Kept] = []  # least recently used first
        self._guard = threading.Lock()

    def begin(self, tenant: str, ids: Sequence[int], capacity_tokens: int) -> tuple[Cache, int] | None:
        """A cache with the longest known beginning of ``ids``, and its length, or None.

        Never all of ``ids``: the last one has to be read to know what follows it.
        """
        with self._guard:
            shared, best = self._longest(tenant, ids)
            if best is None:
                return None
            self._kept.remove(best)
            self._kept.append(best)
        return kv_cache.copied(best.cache, shared, capacity_tokens), shared

    def known_tokens(self, tenant: str, ids: Sequence[int]) -> int:
        """How many tokens :meth:`begin` would give."""
        with self._guard:
            return self._longest(tenant, ids)[0]

    def keep(self, tenant: str, ids: Sequence[int], cache: Cache) -> None:
        """Keep the states of ``ids``. The caller must not write to ``cache`` afterwards."""
        if not kv_cache.can_roll_back(cache):
            return
        new = _Kept(tenant, tuple(ids), cache, kv_cache.held_bytes(cache))
        if new.bytes > self._budget_bytes or len(ids) < FEWEST_TOKENS:
            return
        with self._guard:
            # A beginning of the new one is not needed beside it.
            self._kept = [
                old for old in self._kept if old.tenant != tenant or _shared(old.ids, new.ids) < len(old.ids)
            ]
            self._kept.append(new)
            while self.held_bytes > self._budget_bytes:
                del self._kept[0]

    def _longest(self, tenant: str, ids: Sequence[int]) -> tuple[int, _Kept | None]:
        shared, best = max(
            ((_shared(kept.ids, ids), kept) for kept in self._kept if kept.tenant == tenant),
            key=lambda found: found[0],
            default=(0, None),
        )
        shared = min(shared, len(ids) - 1)
        return (shared, best) if shared >= FEWEST_TOKENS else (0, None)

    @property
    def held_bytes(self) -> int:
        """Bytes of all states kept."""
        return sum(kept.bytes for kept in self._kept)

    def clear(self) -> None:
        """Forget everything."""
        with self._guard:
            self._kept.clear()


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens at the beginning that are the same."""
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    return min(len(first), len(second))

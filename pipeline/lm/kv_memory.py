"""The memory tier: entries that requests hold, counted before they are filled.

Room is taken for everything a request wants at once or not at all, so requests never wait for each
other in a circle, and the budget holds at every moment. An entry is filled by the first request that
took it; the others wait for that, and one of them takes over if it gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import TYPE_CHECKING

from pipeline.errors import LimitExceededError, WorkCancelledError
from pipeline.lm.kv_identity import Address
from pipeline.lm.kv_value import Use, Uses

if TYPE_CHECKING:
    import torch

_POLL_SECONDS = 0.05

Cancelled = Callable[[], bool]
Tensors = Mapping[str, "torch.Tensor"]


@dataclass(slots=True)
class _Entry:
    """Memory for one passage: taken, then filled; or given up, and then whoever waits fills it."""

    size_bytes: int
    holders: int = 1
    tensors: Tensors = field(default_factory=dict)
    use: Use = field(default_factory=lambda: Use(0))
    settled: Event = field(default_factory=Event)
    given_up: bool = False
    removed: bool = False


class MemoryTier:
    """Entries by key within a budget of bytes. Thread-safe."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.peak_bytes = 0
        self.evicted = 0
        self.evicted_bytes = 0
        self._entries: dict[Address, _Entry] = {}
        self._bytes = 0
        self._uses = Uses()
        self._changed = Condition()

    @property
    def bytes(self) -> int:
        """Bytes of all entries, those still being filled included."""
        return self._bytes

    @property
    def held_bytes(self) -> int:
        """Bytes of the entries that a request holds at this moment."""
        with self._changed:
            return sum(entry.size_bytes for entry in self._entries.values() if entry.holders)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Address) -> bool:
        """Whether the entry is there and filled."""
        entry = self._entries.get(key)
        return entry is not None and bool(entry.tensors)

    def take(self, sizes: Mapping[Address, int], cancelled: Cancelled = lambda: False) -> set[Address]:
        """Hold all these entries, and wait for room if need be; returns those the caller has to fill.

        Raises LimitExceededError if they could never fit, WorkCancelledError while waiting.
        """
        total = sum(sizes.values())
        if total > self.budget_bytes:
            raise LimitExceededError(
                f"{len(sizes)} passages take {total:,} bytes of KV states; the memory budget is "
                f"{self.budget_bytes:,}.",
                remedy="Raise contexts.memory_bytes, attend fewer passages, or choose a smaller format.",
            )
        with self._changed:
            while not self._make_room(sizes):
                if cancelled():
                    raise WorkCancelledError("The request was cancelled while it waited for memory.")
                self._changed.wait(_POLL_SECONDS)
            mine = {key for key in sizes if key not in self._entries}
            for key, size in sizes.items():
                if key in mine:
                    self._entries[key] = _Entry(size)
                    self._bytes += size
                else:
                    self._entries[key].holders += 1
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            return mine

    def wait(self, key: Address, cancelled: Cancelled) -> bool:
        """Wait until another request has filled the entry; True if it gave up and the caller has to."""
        entry = self._entries[key]
        while True:
            if not entry.settled.wait(_POLL_SECONDS):
                if cancelled():
                    raise WorkCancelledError("The request was cancelled while it waited for a passage.")
                continue
            with self._changed:
                if entry.tensors:
                    return False
                if entry.given_up:  # the first to notice takes over
                    entry.given_up = False
                    entry.settled.clear()
                    return True

    def fill(self, key: Address, tensors: Tensors, seconds: float) -> None:
        """Put the states into an entry that the caller holds; ``seconds`` is what building them costs."""
        entry = self._entries[key]
        entry.use = Use(entry.size_bytes, seconds)
        self._uses.learn(entry.use)
        entry.tensors = tensors
        entry.settled.set()

    def used(self, key: Address) -> Tensors:
        """The states of a filled entry that the caller holds; counts as a use."""
        entry = self._entries[key]
        entry.use.last = self._uses.touch(key)
        return entry.tensors

    def hold(self, key: Address) -> None:
        """Hold an entry once more, for somebody else; it is held already."""
        with self._changed:
            self._entries[key].holders += 1

    def is_removed(self, key: Address) -> bool:
        """Whether a held entry was removed meanwhile: nothing of it may be kept."""
        return self._entries[key].removed

    def release(self, keys: Iterable[Address], mine: Iterable[Address] = ()) -> None:
        """Let go of entries; those of ``mine`` that were not filled are left to whoever waits for them."""
        with self._changed:
            for key in mine:
                entry = self._entries[key]
                if not entry.tensors:
                    entry.given_up = True
                    entry.settled.set()
            for key in keys:
                entry = self._entries[key]
                entry.holders -= 1
                if entry.holders == 0 and (entry.removed or not entry.tensors):
                    self._drop(key)
            self._changed.notify_all()

    def remove(self, is_gone: Callable[[Address], bool]) -> None:
        """Drop the entries for which ``is_gone``; held ones when they are let go."""
        with self._changed:
            for key in [key for key in self._entries if is_gone(key)]:
                self._uses.forget(key)
                self._entries[key].removed = True
                if self._entries[key].holders == 0:
                    self._drop(key)

    def clear(self) -> None:
        """Drop everything that nobody holds."""
        self.remove(lambda _: True)

    def _make_room(self, sizes: Mapping[Address, int]) -> bool:
        """Drop the least worthy entries that nobody holds until what is missing fits; False if it cannot."""
        missing = sum(size for key, size in sizes.items() if key not in self._entries)
        excess = self._bytes + missing - self.budget_bytes
        if excess <= 0:
            return True
        free = [key for key, entry in self._entries.items() if entry.holders == 0 and key not in sizes]
        if sum(self._entries[key].size_bytes for key in free) < excess:
            return False
        for key in sorted(free, key=lambda k: self._uses.worth(k, self._entries[k].use)):
            if excess <= 0:
                break
            size = self._entries[key].size_bytes
            excess -= size
            self._drop(key)
            self.evicted += 1
            self.evicted_bytes += size
        return True

    def _drop(self, key: Address) -> None:
        self._bytes -= self._entries.pop(key).size_bytes

"""KV states of one prompt in memory that is reserved once instead of copied at every token.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def new_cache(config: Any, capacity_tokens: int) -> Cache:  # noqa: ANN401 - a transformers config
    """An empty cache for a model of this configuration.

    Layers of attention reserve ``capacity_tokens``, also those with a sliding window: what has left the
    window is masked, not forgotten, so that every layer can be rolled back exactly. Layers of other kinds
    (recurrent states) are those of transformers.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        ReservedLayer(capacity_tokens) if type(layer) in _ATTENTION else layer for layer in cache.layers
    ]
    return cache


def can_roll_back(cache: Cache) -> bool:
    """Whether every layer can forget its last tokens as if they had never been read."""
    return all(isinstance(layer, ReservedLayer) for layer in cache.layers)


def roll_back(cache: Cache, length_tokens: int) -> None:
    """Forget all but the first ``length_tokens``. What was read before is untouched, to the bit."""
    for layer in cache.layers:
        layer.roll_back(length_tokens)


def copied(cache: Cache, length_tokens: int, capacity_tokens: int) -> Cache:
    """A cache of its own with the first ``length_tokens`` states and room for ``capacity_tokens``."""
    copy = DynamicCache()
    with torch.inference_mode():
        copy.layers = [layer.copied(length_tokens, capacity_tokens) for layer in cache.layers]
    return copy


def held_bytes(cache: Cache) -> int:
    """Bytes of memory that the reserved states take, filled or not."""
    return sum(layer.held_bytes for layer in cache.layers if isinstance(layer, ReservedLayer))


def fill(cache: Cache, length_tokens: int) -> None:
    """Put ``length_tokens`` empty states into a cache that knows their shape from having been written to."""
    with torch.inference_mode():
        for layer in cache.layers:
            layer.fill(length_tokens)


class ReservedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values (B, H, T, D) as views of the filled part of buffers (B, H, capacity, D).

    ``DynamicLayer`` concatenates, which copies all states at every token. Everything else that it does
    (lengths, masks, ``crop``) works on the views.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, capacity_tokens: int) -> None:
        super().__init__()
        self._capacity_tokens = capacity_tokens
        self._buffers: tuple[torch.Tensor, ...] = ()

    @property
    def buffers(self) -> tuple[torch.Tensor, ...]:
        """Keys and values (B, H, capacity, D), filled or not; empty before the first tokens."""
        return self._buffers

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the buffers hold; 0 before the first ones."""
        return self._buffers[0].shape[-2] if self._buffers else 0

    def extend_to(self, length_tokens: int) -> None:
        """Count states as filled that were written into the buffers directly."""
        keys, values = self._buffers
        self.keys, self.values = keys[..., :length_tokens, :], values[..., :length_tokens, :]

    @property
    def held_bytes(self) -> int:
        """Bytes of both buffers."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states (B, H, T, D) and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        filled = self.get_seq_length()
        total = filled + key_states.shape[-2]
        if not self._buffers or total > self._buffers[0].shape[-2]:
            # A second time only if the capacity was wrong; twice as much, not to copy at every token.
            self._capacity_tokens = max(self._capacity_tokens, 2 * total if filled else total)
            self._buffers = tuple(
                self._reserve(new, old) for new, old in ((key_states, self.keys), (value_states, self.values))
            )
        keys, values = self._buffers
        keys[..., filled:total, :] = key_states
        values[..., filled:total, :] = value_states
        self.keys, self.values = keys[..., :total, :], values[..., :total, :]
        return self.keys, self.values

    def roll_back(self, length_tokens: int) -> None:
        """Keep the first ``length_tokens``; their places are not written to."""
        if self.is_initialized:
            self.keys = self.keys[..., :length_tokens, :]
            self.values = self.values[..., :length_tokens, :]

    def copied(self, length_tokens: int, capacity_tokens: int) -> ReservedLayer:
        """A layer of its own that begins with the same ``length_tokens``."""
        copy = ReservedLayer(capacity_tokens)
        if self.is_initialized and length_tokens:
            copy.update(self.keys[..., :length_tokens, :], self.values[..., :length_tokens, :])
        return copy

    def fill(self, length_tokens: int) -> None:
        """Become ``length_tokens`` of zeros, for measuring."""
        shape = (*self.keys.shape[:-2], length_tokens, self.keys.shape[-1])
        keys, values = self.keys.new_zeros(shape), self.values.new_zeros((*shape[:-1], self.values.shape[-1]))
        self.roll_back(0)
        self.update(keys, values)

    def _reserve(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        """A buffer shaped like ``new`` with room for the capacity, and ``old`` at its beginning."""
        buffer = new.new_empty((*new.shape[:-2], self._capacity_tokens, new.shape[-1]))
        if old.numel():
            buffer[..., : old.shape[-2], :] = old
        return buffer


_ATTENTION = (DynamicLayer, DynamicSlidingWindowLayer)

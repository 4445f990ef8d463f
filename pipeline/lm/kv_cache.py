"""KV states of one prompt in memory that is reserved once instead of copied at every token.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


def new_cache(config: Any, capacity_tokens: int) -> Cache:  # noqa: ANN401 - a transformers config
    """An empty cache for a model of this configuration.

    Layers that keep all tokens reserve ``capacity_tokens``; those of other kinds (sliding windows,
    recurrent states) are those of transformers.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        ReservedLayer(capacity_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


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

    def _reserve(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        """A buffer shaped like ``new`` with room for the capacity, and ``old`` at its beginning."""
        buffer = new.new_empty((*new.shape[:-2], self._capacity_tokens, new.shape[-1]))
        if old.numel():
            buffer[..., : old.shape[-2], :] = old
        return buffer

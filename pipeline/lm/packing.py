"""Tokens of several requests in one forward pass, each attending only to its own states.

The requests stand one after the other in a batch of one row, so that every matrix of the network is read
once for all of them and nothing is padded. Only attention differs by request: a :class:`PackedCache`
appends each request's new states to that request's own cache and hands over all of them, and
:func:`attend_packed` goes through them one by one.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from pipeline.lm.attention import Following


class Segments:
    """States (1, H, N, D) of each request in the batch, of different lengths N."""

    def __init__(
        self, parts: Sequence[torch.Tensor], lengths: Sequence[int], following: Sequence[Following | None]
    ) -> None:
        """``lengths`` are the new tokens of each request, which are the last of its states; ``following``
        are the plans, if any."""
        self.parts = tuple(parts)
        self.lengths = tuple(lengths)
        self.following = tuple(following)


class PackedCache(Cache):  # type: ignore[misc]
    """The caches of several requests seen as one."""

    def __init__(
        self, caches: Sequence[Cache], lengths: Sequence[int], following: Sequence[Following | None]
    ) -> None:
        """``lengths`` are the tokens that each request reads now, ``following`` its plan, if it has one."""
        by_layer = zip(*(cache.layers for cache in caches), strict=True)
        super().__init__(layers=[_PackedLayer(layers, lengths, following) for layers in by_layer])


class _PackedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of every request. Its own length is nothing: positions are given with the tokens."""

    def __init__(
        self, layers: Sequence[DynamicLayer], lengths: Sequence[int], following: Sequence[Following | None]
    ) -> None:
        super().__init__()
        self._layers = layers
        self._lengths = list(lengths)
        self._following = following

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[Segments, Segments]:
        """Append (1, H, T, D), the new states of all requests one after the other, each to its own cache."""
        pairs = [
            layer.update(keys, values)
            for layer, keys, values in zip(
                self._layers,
                key_states.split(self._lengths, -2),
                value_states.split(self._lengths, -2),
                strict=True,
            )
        ]
        keys, values = zip(*pairs, strict=True)
        return (
            Segments(keys, self._lengths, self._following),
            Segments(values, self._lengths, self._following),
        )


class Attend(Protocol):
    """Attention of one request."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        /,
        *,
        following: Following | None,
    ) -> tuple[torch.Tensor, None]:
        """Output (1, L, Hq, D), and no weights."""
        ...


def attend_packed(
    query: torch.Tensor,
    key: Segments,
    value: Segments,
    window: int | None,
    attend: Attend,
) -> torch.Tensor:
    """Attention (1, T, Hq, D) of queries (1, Hq, T, D) of all requests, each over its own states.

    ``attend`` takes query (1, Hq, L, D), keys and values (1, Hkv, N, D) of one request, a mask (1, 1, L, N),
    or None where each query sees all that stands before it, and the request's plan, and gives (1, L, Hq, D).
    ``window`` is the layer's sliding window: a token sees that many, itself included.
    """
    outs = []
    parts = query.split(list(key.lengths), 2)
    for part, keys, values, following in zip(parts, key.parts, value.parts, key.following, strict=True):
        new, total = part.shape[2], keys.shape[2]
        seen = total if window is None else min(total, window + new - 1)
        mask = _mask(new, seen, window, part.device)
        states = keys[:, :, total - seen :], values[:, :, total - seen :]
        outs.append(attend(part, *states, mask, following=following)[0])
    return torch.cat(outs, 1)


def _mask(new: int, total: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    if new in (1, total) and (window is None or total <= window):
        return None
    rows = torch.arange(total - new, total, device=device)[:, None]
    keys = torch.arange(total, device=device)[None, :]
    allowed = keys <= rows
    if window is not None:
        allowed &= keys > rows - window
    return allowed[None, None]

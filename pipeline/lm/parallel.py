"""Attention to passages that were encoded apart: adaptive parallel encoding (Yang et al. 2025, APE).

Every passage was read behind the same prefix and at the same positions. A later token attends to the
prefix and to what came after the passages as usual, and to all passages together with a temperature T and
a scale S (APE, section 4): the softmax runs over two groups, and the group of the passages enters it with
``S * logsumexp(q.k / (T * sqrt(d)))``. With one passage and T = S = 1 that is sequential attention.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.lm.attention import Attending, attend_lse, tempered
from pipeline.lm.attention_bias import upper_half
from pipeline.lm.kv_format import KvStates

Partial = tuple[torch.Tensor, torch.Tensor]
"""Output (B, Hq, L, D) over some keys, and the logarithm of its softmax denominator, float32 (B, Hq, L)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where everything stands: the prefix takes positions [0, ``prefix_tokens``), every passage begins at
    ``prefix_tokens``, and the first token behind the longest one has ``resume``.

    ``windows`` are the layers' sliding windows in tokens, None where a layer sees everything.
    """

    prefix_tokens: int
    resume: int
    windows: tuple[int | None, ...]

    def position(self, index: int) -> int:
        """Position of the token with this index among prefix and later tokens."""
        return index if index < self.prefix_tokens else index + self.shift

    @property
    def shift(self) -> int:
        """What positions of later tokens exceed their index by."""
        return self.resume - self.prefix_tokens


class ParallelAttention:
    """The ``attend`` of a plan: one request's view of shared, read-only passages.

    The states of passages are used where they are. On a GPU many small blocks cost more than one copy, so
    there they should be joined first (:func:`joined`), unless attention is to be observed.
    """

    def __init__(
        self,
        passages: Sequence[KvStates],
        geometry: Geometry,
        *,
        temperature: float = 1.0,
        scale: float = 1.0,
        biases: Sequence[float] = (),
        observe: bool = False,
    ) -> None:
        """``biases``, one a passage, are added to the logits of attention to it in the second half of the
        layers (:mod:`pipeline.lm.attention_bias`). ``observe`` sums up how much of each token's attention
        every passage gets (:attr:`masses`)."""
        self._passages: Sequence[KvStates] | None = passages
        self._count = len(passages)
        self._geometry = geometry
        self._temperature = temperature
        self._scale = scale
        self._biases = torch.tensor(biases)[:, None, None, None] if biases else None
        self._observe = observe
        self._observed: torch.Tensor | None = None
        self._rows = 0
        self._masks: dict[tuple[int, int, int | None], _Mask] = {}

    def __call__(self, call: Attending) -> torch.Tensor:
        """Output (B, Hq, L, D) of one layer. Raises RuntimeError once the passages were let go."""
        if self._passages is None:
            raise RuntimeError("The passages were let go: nothing can be read behind them any more.")
        geometry = self._geometry
        window = geometry.windows[call.layer]
        first = call.key.shape[2] - call.query.shape[2]
        parts = [self._own(call, window, first)]
        query = call.query.contiguous()  # or every passage would copy it to make rows of it
        later = tempered(replace(call, query=query, bias=None), self._temperature)
        for passage in self._passages:
            keys, values = passage.keys[call.layer][None], passage.values[call.layer][None]
            parts.append(partial(later, keys, values, self._window_mask(keys, call, window, first)))
        is_biased = call.layer in range(*upper_half(len(geometry.windows)))
        return self._merged(parts, call.value.dtype, self._biases if is_biased else None)

    @property
    def masses(self) -> list[float]:
        """Share of attention that each passage got, averaged over layers, heads and tokens so far."""
        if self._observed is None:
            return [0.0] * self._count
        return (self._observed / self._rows).tolist()  # type: ignore[no-any-return]

    def let_go(self) -> None:
        """Keep no passage in memory any longer. Nothing can be read behind them from now on."""
        self._passages = None

    def reset_masses(self) -> None:
        """Begin to observe anew, for instance once the question has been read."""
        self._observed, self._rows = None, 0

    def _own(self, call: Attending, window: int | None, first: int) -> Partial:
        """Attention to the prefix and to what followed the passages."""
        mask = self._own_mask(call, window, first)
        plain = call.softcap is None and call.bias is None and call.query.device.type == "cpu"
        found = _fused(call, call.key, call.value, mask.added) if plain else None
        # Without a mask there is one row, and it sees everything.
        return found or attend_lse(replace(call, mask=mask.allowed))

    def _own_mask(self, call: Attending, window: int | None, first: int) -> _Mask:
        """What of it a row sees, by true positions. The layers of one pass share it: all of them have the
        same heads and number format."""
        keys = call.key.shape[2]
        if window is None and keys - first == 1:
            return _Mask()
        asked = (first, keys, window)
        if asked not in self._masks:
            places = torch.tensor([self._geometry.position(i) for i in range(keys)])
            rows = places[first:, None]
            allowed = places <= rows
            if window is not None:
                allowed &= rows - places < window
            heads, shared = call.query.shape[1], call.key.shape[1]
            mask = _Mask() if bool(allowed.all()) else _Mask.of(allowed, heads // shared, call.query)
            self._masks = {known: kept for known, kept in self._masks.items() if known[:2] == asked[:2]}
            self._masks[asked] = mask
        return self._masks[asked]

    def _window_mask(
        self, keys: torch.Tensor, call: Attending, window: int | None, first: int
    ) -> torch.Tensor | None:
        """Which of a passage's tokens a sliding window still sees, (1, 1, L, T); None: all of them."""
        geometry = self._geometry
        last = geometry.position(call.key.shape[2] - 1)
        if window is None or last - geometry.prefix_tokens < window:
            return None
        rows = torch.arange(first, call.key.shape[2], device=keys.device) + geometry.shift
        places = geometry.prefix_tokens + torch.arange(keys.shape[2], device=keys.device)
        return (rows[:, None] - places < window)[None, None]

    def _merged(self, parts: list[Partial], dtype: torch.dtype, biases: torch.Tensor | None) -> torch.Tensor:
        """The parts under one softmax: (APE, equation 5) with S on the passages' common logarithm C, that
        is, with (S - 1) C more for each of them, and its bias."""
        lses = torch.stack([lse for _, lse in parts])
        if self._scale != 1 and len(parts) > 1:
            lses[1:] += (self._scale - 1) * lses[1:].logsumexp(0)
        if biases is not None:
            lses[1:] += biases.to(lses.device)
        weights = lses.softmax(0)
        if self._observe:
            self._note(weights[1:])
        weights = weights[..., None]
        merged = weights[0] * parts[0][0]
        for weight, (out, _) in zip(weights[1:], parts[1:], strict=True):
            merged.addcmul_(weight, out)
        return merged.to(dtype)

    def _note(self, weights: torch.Tensor) -> None:
        mass = weights.float().mean((1, 2)).sum(-1)
        self._observed = mass if self._observed is None else self._observed + mass
        self._rows += weights.shape[-1]


def joined(passages: Sequence[KvStates]) -> KvStates:
    """All passages as one: the same attention in fewer and larger steps, for one copy of their states."""
    return KvStates(
        torch.cat([passage.keys for passage in passages], dim=2),
        torch.cat([passage.values for passage in passages], dim=2),
    )


@dataclass(frozen=True, slots=True)
class _Mask:
    """What rows see: ``allowed`` (1, 1, L, N), and ``added`` (rows, N), 0 or -inf, which the kernel of a CPU
    adds to its logits, where the heads that share keys are rows. Both None: everything."""

    allowed: torch.Tensor | None = None
    added: torch.Tensor | None = None

    @classmethod
    def of(cls, allowed: torch.Tensor, groups: int, query: torch.Tensor) -> _Mask:
        """Of ``allowed`` (L, N), for queries like ``query`` of which ``groups`` heads share keys."""
        added = torch.zeros(allowed.shape, dtype=query.dtype).masked_fill_(~allowed, -torch.inf)
        return cls(allowed[None, None].to(query.device), added.repeat(groups, 1))


def partial(call: Attending, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> Partial:
    """Attention to these keys with the logarithm of its denominator, by a fused kernel if one can.

    ``mask`` None: every query sees every key. The key, value and mask of ``call`` are ignored.
    """
    if mask is None and call.softcap is None and call.bias is None:
        fused = _fused(call, key, value)
        if fused is not None:
            return fused
    if mask is None:
        mask = torch.ones(
            (1, 1, call.query.shape[2], key.shape[2]), dtype=torch.bool, device=call.query.device
        )
    return attend_lse(replace(call, key=key, value=value, mask=mask))


def _fused(
    call: Attending, key: torch.Tensor, value: torch.Tensor, added: torch.Tensor | None = None
) -> Partial | None:
    """Flash attention with its logarithm; the heads that share keys become rows, so nothing is repeated.

    ``added`` (rows, N) goes to the logits, on a CPU only, and must leave every row a key: of one that sees
    nothing the kernel gives the logarithm 0. The key, value and mask of ``call`` are ignored.
    """
    batch, heads, length, width = call.query.shape
    query = call.query.reshape(batch, key.shape[1], -1, width)
    out: torch.Tensor
    lse: torch.Tensor
    if query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16):
        out, lse = _cpu_flash(query, key, value, 0.0, False, attn_mask=added, scale=call.scaling)
    elif query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16) and width <= 256:
        out, lse = _cuda_flash(query, key, value, 0.0, False, False, scale=call.scaling)[:2]
    else:
        return None
    return out.reshape(batch, heads, length, -1), lse.reshape(batch, heads, length).float()


# What scaled_dot_product_attention itself calls; the public function keeps the logarithm to itself.
_cpu_flash: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cuda_flash: Any = torch.ops.aten._scaled_dot_product_flash_attention

"""Ms-PoE at work (:mod:`pipeline.positions.ms_poe`): heads turned by positions on scales of their own.

The network turns queries and keys by its trained frequencies, ``m * f``; here they are turned on by
``m * f * (1 / r - 1)``, which makes it ``m * f / r``. New keys are turned on where they stand in the cache,
once, so cached states are read as fast as ever. Queries that share keys share a ratio, since a key can be
turned in one way only; it follows from their mean position-awareness.

The paper measures awareness anew on every prompt. Then keys cached for one prompt would be wrong behind
another, so it is measured once, when the model is loaded, on a prompt that is always the same.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.lm.attention import Attending, Plan, following, require, weight_blocks
from pipeline.lm.packing import Segments
from pipeline.positions.declared import rope_of
from pipeline.positions.ms_poe import MsPoe
from pipeline.positions.network import NEAR

FIRST_LAYER = 2
"""The layers before keep their positions, as in the paper's implementation."""
_STANDS_OUT = 3.0  # times the mean weight (the paper's alpha)
_WATCHED_TOKENS = 16
_PASSAGES = 10


class HeadTurns:
    """Turns the queries and new keys of one layer on, by ``turns`` (Hkv, dim / 2) radians a position."""

    def __init__(self, turns: torch.Tensor) -> None:
        self._turns = turns

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor | Segments, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Queries (B, Hq, L, D), turned; the new keys, which are the last L of keys (B, Hkv, N, D), are
        turned in place. ``position_ids`` (B or 1, L) are those the network was given."""
        if position_ids is None:
            raise ModelError(
                "This model's layers are not told the positions of tokens, which ms_poe needs.",
                remedy="Leave language_model.positions at native.",
            )
        angles = position_ids[:, None, :, None].float() * self._turns.to(query.device)[:, None, :]
        if isinstance(key, Segments):
            news = [part[:, :, -n:] for part, n in zip(key.parts, key.lengths, strict=True)]
            each = zip(news, angles.split(list(key.lengths), 2), strict=True)
        else:
            each = zip([key[:, :, -query.shape[2] :]], [angles], strict=True)
        for new, by in each:
            new.copy_(turned(new, by))
        return turned(query, angles.repeat_interleave(query.shape[1] // angles.shape[1], 1))


class Awareness:
    """Observes by layer the share of tokens that the last ones of a prompt give more than
    ``_STANDS_OUT`` times the mean weight (the paper's section 3.2)."""

    def __init__(self) -> None:
        self.shares: dict[int, NDArray[np.float64]] = {}
        """Layer to position-awareness of its query heads (Hq,)."""

    def see(self, attending: Attending) -> None:
        """Look at one layer."""
        length = attending.query.shape[2]
        rows = torch.arange(max(length - _WATCHED_TOKENS, 0), length, device=attending.query.device)
        shares = []
        for _, weights in weight_blocks(attending, rows):
            stands_out = weights > _STANDS_OUT * weights.mean(-1, keepdim=True)
            shares.append(stands_out.double().mean(-1)[0])
        self.shares[attending.layer] = torch.cat(shares, -1).mean(-1).cpu().numpy()


def turned(states: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Heads (B, H, T, D) turned by angles (B, H, T, dim / 2), computed in float32. The first half of the
    turned width pairs with the second; what lies beyond it stays."""
    half, cos, sin = angles.shape[-1], angles.cos(), angles.sin()
    first, second, rest = states.split([half, half, states.shape[-1] - 2 * half], -1)
    a, b = first.float(), second.float()
    both = torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(states.dtype)
    return torch.cat((both, rest), -1)


def apply(network: Any, method: MsPoe, probe: Sequence[int]) -> None:  # noqa: ANN401 - of transformers
    """Give the layers of a loaded network their turns, by awareness measured on the tokens of ``probe``.

    Layers of sliding windows with frequencies of their own keep them. Raises ModelError for a family whose
    attention is not supported, and ConfigurationError for rotary positions that are stretched already.
    """
    require(network, "ms_poe")
    config = network.config.get_text_config(decoder=True)
    rope = rope_of(config.to_dict(), int(config.max_position_embeddings))
    frequencies = torch.from_numpy(rope.frequencies())
    seen = Awareness()
    with torch.inference_mode(), following(Plan(observers=(seen,))):
        network(input_ids=torch.tensor([list(probe)], device=network.device), use_cache=False)
    near = any(hasattr(module, f"{NEAR}_inv_freq") for module in network.modules())
    kinds = getattr(config, "layer_types", None) or []
    table = []
    for module in network.modules():
        layer = getattr(module, "layer_idx", None)
        if layer is None or not hasattr(module, "head_dim"):  # no layer of attention
            continue
        if layer < FIRST_LAYER or (near and kinds[layer] == NEAR):
            continue
        shared = seen.shares[layer].reshape(int(config.num_key_value_heads), -1).mean(1)
        ratios = method.ratios(shared)
        table.append([layer, *ratios.round(6).tolist()])
        turns = torch.from_numpy(1 / ratios - 1)[:, None] * frequencies
        module.head_turns = HeadTurns(turns.float())
    network.head_ratios = table
    network.position_method = f"{method} {hashlib.sha256(repr(table).encode()).hexdigest()[:12]}"


def probe(chat: Any) -> list[int]:  # noqa: ANN401 - a ChatFormat
    """The tokens of a prompt that is always the same: a question behind made-up passages."""
    from pipeline.lm.pairs import made_up
    from pipeline.prompt import place
    from pipeline.types import Hit

    pairs = made_up(_PASSAGES)
    hits = [Hit(str(n), str(n), 1, p.title, p.passage, 0, len(p.passage), 1.0) for n, p in enumerate(pairs)]
    ids: list[int] = chat.prompt_ids(place(pairs[_PASSAGES // 2].question, hits).messages)
    return ids

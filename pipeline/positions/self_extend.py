"""SelfExtend (Jin et al. 2024, arXiv:2401.01325) as an attention function of transformers.

A query at ``i`` sees a key at ``j`` as it would at distance ``i - j`` if that is less than
``neighbours``, else at ``floor(i / group) - floor(j / group) + neighbours - floor(neighbours / group)``
(their eqs. 3-4), so that no distance exceeds the trained ones. In a bidirectional encoder keys that come
after the query are seen in the mirror. Nothing is trained and no class is changed: the network's own
rotation is the identity (see :mod:`pipeline.positions.network`), and the rotation happens here.

Axes: B batch, H heads, K key heads, L queries, N keys, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.positions.rotary import Rope, SelfExtend

_QUERY_BLOCK = 256  # rows of attention weights held at a time

AttentionFunction = Callable[..., tuple[torch.Tensor, None]]


def register(method: SelfExtend, rope: Rope, *, near_as_stock: bool) -> str:
    """Make the method known to transformers; the name is what to set as attention implementation.

    ``near_as_stock`` says that layers which look at near tokens only have their own rotation still.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    name = f"{str(method).replace(':', '_')}_{rope.dim}_{rope.theta:g}_{near_as_stock:d}"
    AttentionInterface.register(name, attention(method, rope, near_as_stock=near_as_stock))
    AttentionMaskInterface.register(name, eager_mask)
    return name


def attention(method: SelfExtend, rope: Rope, *, near_as_stock: bool = False) -> AttentionFunction:
    """The attention function of this method for heads that turn as ``rope`` says."""
    frequencies = torch.from_numpy(rope.frequencies()).float()
    shift, near = method.shift, method.neighbours

    def attend(  # noqa: PLR0917 - as transformers calls it
        module: Any,  # noqa: ANN401 - an attention layer of transformers
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **others: Any,  # noqa: ANN401 - what other implementations take
    ) -> tuple[torch.Tensor, None]:
        if near_as_stock and getattr(module, "sliding_window", None):
            return _stock(module, query, key, value, attention_mask, scaling, others)
        length, total = query.shape[2], key.shape[2]
        turns = frequencies.to(query.device)
        keys_at = torch.arange(total, device=query.device)
        queries_at = keys_at[total - length :]
        near_keys = rotate(key, keys_at, turns)
        far_keys = rotate(key, keys_at // method.group, turns)
        if value.shape[1] != query.shape[1]:
            groups = query.shape[1] // value.shape[1]
            near_keys, far_keys, value = (
                t.repeat_interleave(groups, dim=1) for t in (near_keys, far_keys, value)
            )
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        rows = []
        for start in range(0, length, _QUERY_BLOCK):
            at = queries_at[start : start + _QUERY_BLOCK]
            asked = query[:, :, start : start + _QUERY_BLOCK]
            first, last = total - length + start, total - length + start + len(at) - 1
            # Keys that some row sees as near; those that every row sees as far are computed once only.
            low, high = max(first - near + 1, 0), min(last + near, total)
            scores = asked.new_empty((*asked.shape[:3], total))
            scores[..., low:high] = rotate(asked, at, turns) @ near_keys[:, :, low:high].transpose(2, 3)
            before, after = slice(0, max(last - near + 1, 0)), slice(first + near, None)
            for side, moved, keys in ((1, shift, before), (-1, -shift, after)):
                if len(of := keys_at[keys]):
                    turned = rotate(asked, at // method.group + moved, turns)
                    grouped = turned @ far_keys[:, :, keys].transpose(2, 3)
                    far = (at[:, None] - of) * side >= near
                    scores[..., keys] = torch.where(far, grouped, scores[..., keys])
            scores = scores.float() * scale
            if softcap := others.get("softcap"):
                scores = (scores / softcap).tanh() * softcap
            if attention_mask is not None:
                scores = scores + attention_mask[:, :, start : start + _QUERY_BLOCK, :total]
            rows.append(scores.softmax(-1).to(value.dtype) @ value)
        return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None

    return attend


def rotate(x: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Heads ``(B, H, n, D)`` turned by positions ``(n,)``; what lies beyond the turned width stays.

    The first half of the turned width pairs with the second half, as transformers has it.
    """
    angles = positions[:, None].float() * frequencies  # (n, dim / 2), float32 whatever x is
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    half = frequencies.shape[0]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def _stock(  # noqa: PLR0917 - as transformers calls it
    module: Any,  # noqa: ANN401 - an attention layer of transformers
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    others: dict[str, Any],
) -> tuple[torch.Tensor, None]:
    """A layer that looks at near tokens only needs no extension."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, scaling=scaling, **others
    )
    return result

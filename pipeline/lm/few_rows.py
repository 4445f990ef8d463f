"""Attention of a few queries over very many keys: decoding, and verifying a draft.

A fused kernel gives each head of keys to one processor of a GPU; with a few heads and one short block of
queries most of it stands still. Plain matrix products with the keys cut into parts keep all of it busy, and
heads of queries that share keys are rows of one product, so that nothing is copied. On a CPU the fused kernel
is the faster one, provided that it reads shared keys once instead of once for each head of queries.
"""

from __future__ import annotations

import torch

_PART_TOKENS = 512


def attend_few(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Softmax attention (B, Hq, L, D) of queries (B, Hq, L, D) over keys and values (B, Hkv, N, D).

    ``mask`` (B or 1, 1, L, N) is true where a query may look, or a float that is added. Logits and weights'
    sums are float32; weights are rounded to the values' type only for the product with them.
    """
    batch, heads, length, width = query.shape
    shared = key.shape[1]
    groups = heads // shared
    rows = query.reshape(batch, shared, groups * length, width)
    scores = _float_product(rows, key.transpose(-1, -2)) * scaling
    tiled = mask.repeat(1, 1, groups, 1)
    if tiled.dtype == torch.bool:
        scores = scores.masked_fill(~tiled, torch.finfo(torch.float32).min)
    else:
        scores = scores + tiled.float()
    weights = scores.softmax(-1).to(value.dtype)
    return _in_parts(weights, value).reshape(batch, heads, length, value.shape[-1])


def attend_grouped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """As :func:`attend_few` by the fused kernel. ``mask`` may also be (B or 1, Hq, L, N), or None where every
    query may look at every key."""
    batch, heads, length, width = query.shape
    shared = key.shape[1]
    groups = heads // shared
    if mask is not None and mask.shape[1] == heads:
        mask = mask.reshape(-1, shared, groups * length, mask.shape[-1])
    elif mask is not None:
        mask = mask.repeat(1, 1, groups, 1)
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, shared, groups * length, width), key, value, attn_mask=mask, scale=scaling
    )
    return out.reshape(batch, heads, length, value.shape[-1])


def _in_parts(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``weights @ value`` for (B, H, R, N) and (B, H, N, D), summed over parts of N in float32."""
    tokens = value.shape[2]
    whole = tokens // _PART_TOKENS * _PART_TOKENS
    out = _float_product(weights[..., whole:], value[:, :, whole:])
    if whole:
        cut = (whole // _PART_TOKENS, _PART_TOKENS)
        parts = weights[..., :whole].unflatten(-1, cut).transpose(2, 3)  # (B, H, parts, R, part)
        values = value[:, :, :whole].unflatten(2, cut)
        if values.is_contiguous():
            out = out + _float_product(parts, values).sum(2)
        else:  # head by head, or all values would be copied to be one batch
            heads = [_float_product(parts[:, h], values[:, h]).sum(1) for h in range(value.shape[1])]
            out = out + torch.stack(heads, 1)
    return out.to(value.dtype)


def _float_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A matrix product that is summed up and given in float32, whatever is multiplied."""
    if left.is_cuda and left.dtype != torch.float32:
        lead = left.shape[:-2]
        flat = torch.bmm(
            left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:]), out_dtype=torch.float32
        )
        return flat.reshape(*lead, *flat.shape[-2:])
    return (left @ right).float()

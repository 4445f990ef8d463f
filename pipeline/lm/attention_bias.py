"""Attention to passages raised and lowered while the model writes, by a bias on the logits.

An answer's tokens pay attention in proportion to ``exp(logit)``, so a bias b on the logits of a passage's
tokens multiplies what the model itself would pay them with e^b before everything is normalised anew: the
model's own preferences stay, and what some passages gain is taken from the others and from the rest of the
prompt. SpotLight (Venkateswaran and Contractor 2025, arXiv 2505.12025) steers attention to instructions with
such a bias; found in the middle (Hsieh et al. 2024, :mod:`pipeline.lm.reweigh`) replaces what the model would
pay by shares.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.lm.attention import Attending, Plan, attend
from pipeline.lm.spans import Span


def upper_half(layers: int) -> tuple[int, int]:
    """The layers in which an answer's attention to passages is moved (Hsieh et al. 2024, section 3.3)."""
    return layers // 2, layers


def biasing(spans: Sequence[Span], biases: Sequence[float], begins: int, layers: tuple[int, int]) -> Plan:
    """A plan for one prompt, under which, in layers ``[first, end)``, the logits of attention of tokens from
    ``begins`` on to the tokens of each span have its bias (nats) added."""

    @functools.cache
    def by_token(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Of the prompt's tokens up to the end of the last span."""
        row = torch.zeros(max(end for _, end in spans))
        for (first, end), bias in zip(spans, biases, strict=True):
            row[first:end] = bias
        return row.to(device, dtype)

    def on_keys(call: Attending) -> torch.Tensor:
        """(1, 1, 1, N) for the keys of this call."""
        row = by_token(call.query.device, call.query.dtype)[call.key_start :]
        keys = call.key.shape[2]
        return torch.nn.functional.pad(row[:keys], (0, max(keys - len(row), 0)))[None, None, None]

    def biased(call: Attending) -> torch.Tensor:
        rows = call.query.shape[2]
        before = min(max(begins - call.start, 0), rows)  # rows that are read as ever
        if before == rows or not layers[0] <= call.layer < layers[1]:
            return attend(call)
        if not before:
            return attend(replace(call, bias=on_keys(call)))
        mask = None if call.mask is None else call.mask[:, :, before:]
        later = replace(call, query=call.query[:, :, before:], mask=mask, bias=on_keys(call))
        out = attend(call)
        out[:, :, before:] = attend(later)
        return out

    return Plan(attend=biased, packs=True, begins=begins)

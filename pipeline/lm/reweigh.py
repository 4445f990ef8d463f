"""Passages re-weighted inside the model instead of moved: the intervention of "found in the middle".

Hsieh et al. 2024 (section 3.3, equation 5) give each passage the share of attention that its calibrated
score deserves, and leave the attention to everything else, and the total, as they are. A bias that leaves the
model a say is :mod:`pipeline.lm.attention_bias`.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.lm.attention import Attending, Plan, attend, weight_blocks
from pipeline.lm.signals import Floats
from pipeline.lm.spans import Span


def reweighing(
    spans: Sequence[Sequence[Span]],
    wanted: Sequence[Floats],
    starts: Sequence[int],
    layers: tuple[int, int],
) -> Plan:
    """A plan under which, in layers ``[first, end)``, tokens from ``starts`` on spread the attention that
    they pay to the passages as ``wanted`` says; one entry of each for each prompt of the batch."""
    shared = torch.stack([torch.from_numpy(of_one) for of_one in wanted])  # (B, spans)

    def reweighed(call: Attending) -> torch.Tensor:
        out = attend(call)
        end = call.start + call.query.shape[2]
        first = max(min(starts), call.start)
        if not layers[0] <= call.layer < layers[1] or first >= end:
            return out
        rows = torch.arange(first - call.start, end - call.start, device=out.device)
        for block, weights in weight_blocks(call, rows):
            factors = _factors(call, block, weights)
            shape = (*weights.shape[:1], call.value.shape[1], -1, weights.shape[-1])
            mixed = (weights * factors).to(call.value.dtype).reshape(shape) @ call.value
            out[:, :, block] = mixed.reshape(*weights.shape[:3], -1)
        return out

    def _factors(call: Attending, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """What each weight (B, H, R, N) is multiplied with; ones outside passages and in rows before the
        start."""
        factors = torch.ones_like(weights)
        for n, of_one in enumerate(spans):
            edges = [slice(max(a - call.key_start, 0), max(b - call.key_start, 0)) for a, b in of_one]
            masses = torch.stack([weights[n, :, :, edge].sum(-1) for edge in edges], -1)
            fair = shared[n].to(masses.device) * masses.sum(-1, keepdim=True)
            wished = torch.where(masses > 0, fair / masses.clamp(min=1e-9), torch.ones_like(masses))
            active = (rows + call.start >= starts[n])[None, :]
            for s, edge in enumerate(edges):
                factors[n, :, :, edge] = torch.where(active, wished[:, :, s], 1.0)[..., None]
        return factors

    return Plan(attend=reweighed, packs=True, begins=min(starts))

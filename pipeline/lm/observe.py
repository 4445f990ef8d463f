"""How much attention chosen tokens pay to passages, in every layer and head, while a prompt is read.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from pipeline.errors import InvalidRequestError
from pipeline.lm.attention import Attending, weight_blocks

Span = tuple[int, int]
"""Half-open token range ``[start, end)`` of a prompt."""


class SpanMass:
    """Attention mass of each span: the attention weights that a token pays to the span's tokens, summed.

    Of the whole L x L matrix only the rows of ``tokens`` are computed, in blocks, and of them only the
    sums over spans are kept: memory grows with tokens watched x spans, whatever the prompt's length.
    """

    def __init__(self, spans: Sequence[Sequence[Span]], tokens: range) -> None:
        """``spans`` for each prompt of the batch, the same number each; ``tokens`` are the rows watched,
        in token indices of the (padded) prompts. Raises InvalidRequestError for an empty or backward span.
        """
        counts = [len(of_one) for of_one in spans]
        if len(set(counts)) != 1 or not len(tokens):
            raise InvalidRequestError(
                f"Attention to {counts} spans from {len(tokens)} tokens was asked for.",
                remedy="Give the same number of spans for each prompt, and at least one token.",
            )
        for start, end in (span for of_one in spans for span in of_one):
            if not 0 <= start < end:
                raise InvalidRequestError(
                    f"A passage takes the tokens [{start}, {end}) of the prompt, which are none.",
                    remedy="Leave empty passages out.",
                )
        self._spans = spans
        self._tokens = tokens
        self._parts: dict[int, list[torch.Tensor]] = defaultdict(list)
        self._inside: dict[tuple[int, int], torch.Tensor] = {}

    def see(self, attending: Attending) -> None:
        """Add one layer of one forward pass; passes must come in the order of the prompt."""
        first = max(self._tokens.start, attending.start)
        last = min(self._tokens.stop, attending.start + attending.query.shape[2])
        if first >= last:
            return
        rows = torch.arange(first - attending.start, last - attending.start, device=attending.query.device)
        inside = self._membership(attending)
        for _, weights in weight_blocks(attending, rows):
            self._parts[attending.layer].append(weights @ inside)

    def masses(self) -> torch.Tensor:
        """Float32 (layers, B, H, T, spans) on the CPU; entry ``t`` belongs to the t-th of ``tokens``."""
        return torch.stack([torch.cat(self._parts[layer], 2) for layer in sorted(self._parts)]).cpu()

    def _membership(self, attending: Attending) -> torch.Tensor:
        """Ones (B, 1, N, spans) where key ``j`` lies inside span ``s``. All layers share few of them."""
        keys, key_start = attending.key.shape[2], attending.key_start
        if (keys, key_start) not in self._inside:
            inside = torch.zeros(len(self._spans), 1, keys, len(self._spans[0]))
            for n, of_one in enumerate(self._spans):
                for s, (start, end) in enumerate(of_one):
                    inside[n, 0, max(start - key_start, 0) : max(end - key_start, 0), s] = 1
            self._inside[keys, key_start] = inside.to(attending.key.device)
        return self._inside[keys, key_start]

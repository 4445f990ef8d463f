"""Passes of a fixed number of tokens over one request's states, recorded once and replayed.

A pass of few tokens on a GPU takes longer to be launched, kernel by kernel, than to be computed. A CUDA graph
launches all of it at once, but its shapes and addresses must not change. So the pass attends to the whole
memory reserved for the states, and a mask that is computed inside says how much of it is filled.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from pipeline.lm.kv_cache import ReservedLayer
from pipeline.lm.sequence import Sequence


def is_fixed_step_possible(sequence: Sequence, new_tokens: int) -> bool:
    """Whether every layer keeps all states in memory that is reserved for them and the new tokens, and sees
    them without a sliding window."""
    config = sequence.engine.network.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    windowed = getattr(config, "sliding_window", None) is not None and "sliding_attention" in kinds
    total = sequence.length_tokens + new_tokens
    return (
        not windowed
        and config.model_type not in ("mistral", "phi3")  # window all layers, without naming them
        and not hasattr(sequence.engine.network, "head_ratios")  # new keys are then not the last ones
        and sequence.plan is None
        and sequence.length_tokens > 0
        and all(
            isinstance(layer, ReservedLayer) and layer.capacity_tokens >= total
            for layer in sequence.cache.layers
        )
    )


class FixedStep:
    """Reads ``new_tokens`` at a time after whatever the sequence holds."""

    def __init__(self, sequence: Sequence, new_tokens: int, *, record: bool = True) -> None:
        """``record`` makes a CUDA graph of the pass; without it the same operations run one by one.

        What is read while recording is overwritten or masked later: the sequence is as before.
        """
        self._sequence = sequence
        device = sequence.engine.network.device
        self._ids = torch.zeros(1, new_tokens, dtype=torch.long, device=device)
        self._slots = torch.arange(new_tokens, device=device) + sequence.length_tokens
        self._positions = self._slots + sequence.shift
        self._cache = _FixedCache(sequence.cache, self._slots)
        with torch.inference_mode():  # a weight of 0 does not hide whatever NaN stood in that memory before
            for layer in sequence.cache.layers:
                for buffer in layer.buffers:
                    buffer[..., sequence.length_tokens :, :] = 0
        self._capacity_tokens = min(layer.capacity_tokens for layer in sequence.cache.layers)
        self._logits: torch.Tensor | None = None
        self._graph: Any = None
        if record:
            self._record()

    def __call__(self, ids: Several[int]) -> torch.Tensor:
        """Read the tokens. Logits (new tokens, V), valid until the next call."""
        start = self._sequence.length_tokens
        with torch.inference_mode():
            self._ids.copy_(torch.tensor([list(ids)]), non_blocking=True)
            self._slots.copy_(torch.arange(start, start + len(ids)), non_blocking=True)
            self._positions.copy_(self._slots + self._sequence.shift)
            if self._graph is None:
                self._logits = self._pass()
            else:
                self._graph.replay()
        for layer in self._sequence.cache.layers:
            layer.extend_to(start + len(ids))
        assert self._logits is not None
        return self._logits

    def _pass(self) -> torch.Tensor:
        keys = torch.arange(self._capacity_tokens, device=self._slots.device)
        mask = (keys[None, :] <= self._slots[:, None])[None, None]
        result = self._sequence.engine.network(
            input_ids=self._ids,
            position_ids=self._positions[None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = result.logits[0]
        return logits

    def _record(self) -> None:
        aside = torch.cuda.Stream(self._ids.device)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(2):  # libraries choose their kernels and make room before anything is recorded
                self._pass()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._logits = self._pass()


class _FixedCache(Cache):  # type: ignore[misc]
    """Writes new states into given slots of a cache's buffers and hands out all of each buffer."""

    def __init__(self, cache: Cache, slots: torch.Tensor) -> None:
        super().__init__(layers=[_FixedLayer(layer, slots) for layer in cache.layers])


class _FixedLayer(DynamicLayer):  # type: ignore[misc]
    def __init__(self, layer: ReservedLayer, slots: torch.Tensor) -> None:
        super().__init__()
        self._keys, self._values = layer.buffers
        self._slots = slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put states (B, H, T, D) into the T slots; all states of the buffers."""
        self._keys.index_copy_(2, self._slots, key_states)
        self._values.index_copy_(2, self._slots, value_states)
        return self._keys, self._values

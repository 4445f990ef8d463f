"""One model reading passages apart, and going on behind them.

Imports transformers, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

from pipeline.errors import ModelError, PromptTooLongError, WorkCancelledError
from pipeline.lm import attention
from pipeline.lm.attention import Observer, Plan
from pipeline.lm.context_prompt import Frame, frame
from pipeline.lm.kv_cache import can_roll_back, new_cache
from pipeline.lm.kv_format import KvStates
from pipeline.lm.kv_identity import Origin, ids_digest
from pipeline.lm.kv_pages import stacked
from pipeline.lm.kv_store import Shape
from pipeline.lm.parallel import Geometry, ParallelAttention, joined
from pipeline.lm.reading import PREFILL_TOKENS
from pipeline.lm.sequence import Sequence

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel

Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The tokens before all passages, and their states."""

    ids: tuple[int, ...]
    states: KvStates


class Continuation:
    """A place behind passages from which a model reads on. For one request and one thread at a time.

    ``sequence`` can be read on, rolled back and drafted for as any other.
    """

    def __init__(self, sequence: Sequence, attention_: ParallelAttention) -> None:
        self.sequence = sequence
        self.attention = attention_
        sequence.plan = Plan(attend=attention_)

    def read(self, ids: Several[int], keep: int = 1, observers: tuple[Observer, ...] = ()) -> torch.Tensor:
        """Read on; logits (``keep``, V) at the last positions."""
        plan = self.sequence.plan
        self.sequence.plan = Plan(attend=self.attention, observers=observers)
        try:
            return self.sequence.read(list(ids), keep)
        finally:
            self.sequence.plan = plan


class PassageReader:
    """Encodes prefixes and passages with one model. Thread-safe: the model's callers take turns."""

    def __init__(self, model: LocalModel) -> None:
        """Raises ModelError for a model whose attention cannot be told what to do, or that keeps other
        states than keys and values of every token."""
        self._model = model
        self._network = model.network
        attention.require(self._network, "Reading cached contexts")
        config = self._network.config
        if not can_roll_back(new_cache(config, 1)):
            raise ModelError(
                f"{model.name} keeps other states than keys and values, which cannot be cached.",
                remedy="Read passages sequentially with this model: context = sequential.",
            )
        self._windows = _windows(config)

    @property
    def revision(self) -> str:
        """Digest of the model's weights."""
        return str(self._model.describe()["revision"])

    @property
    def heads(self) -> tuple[int, int]:
        """Layers, and query heads of each."""
        config = self._network.config.get_text_config(decoder=True)
        return config.num_hidden_layers, config.num_attention_heads

    def frame(self, question: str) -> Frame:
        """The prompt around passages."""
        return frame(self._model.chat, question)

    def logits_of(self, answer: Several[int], prompt: Several[int]) -> torch.Tensor:
        """Logits (answer tokens, V) that predict each token of ``answer`` after ``prompt``, read as usual."""
        ids = [*prompt, *answer[:-1]]  # the last one is predicted, not read
        self.check_fits(len(ids) + 1)
        sequence, rows = Sequence(self._model.engine, new_cache(self._network.config, len(ids))), []
        for start in range(0, len(ids), PREFILL_TOKENS):
            chunk = ids[start : start + PREFILL_TOKENS]
            wanted = start + len(chunk) - max(start, len(prompt) - 1)
            logits = sequence.read(chunk, max(wanted, 1))
            if wanted > 0:
                rows.append(logits)
        return torch.cat(rows)

    def prefix(self, ids: Several[int]) -> Prefix:
        """Read what stands before all passages."""
        sequence = self._behind(None, len(ids))
        self._read(sequence, ids, lambda: False)
        return Prefix(tuple(ids), _states(sequence.cache, 0))

    def encode(self, prefix: Prefix, ids: Several[int], cancelled: Cancelled = lambda: False) -> KvStates:
        """The states of one passage behind the prefix. Raises PromptTooLongError, WorkCancelledError."""
        self.check_fits(len(prefix.ids) + len(ids))
        sequence = self._behind(prefix, len(ids))
        self._read(sequence, ids, cancelled)
        return _states(sequence.cache, len(prefix.ids))

    def resume(
        self,
        prefix: Prefix,
        passages: Several[KvStates],
        *,
        room_tokens: int,
        temperature: float,
        scale: float,
        biases: Several[float] = (),
        observe: bool = False,
        passage_tokens: int = 0,
    ) -> Continuation:
        """Go on behind these passages, for at most ``room_tokens`` more. No passages is allowed. ``biases``
        of attention, one a passage, hold in the second half of the layers.

        ``passage_tokens`` is the length of the longest passage where those given are not all. Raises
        PromptTooLongError if it leaves no room in the model's window.
        """
        before = len(prefix.ids)
        resume = before + max([passage_tokens, *(passage.tokens for passage in passages)])
        self.check_fits(resume + room_tokens)
        apart = observe or biases or any(self._windows)
        if passages and self._network.device.type == "cuda" and not apart:
            passages = [joined(passages)]
        seen = ParallelAttention(
            passages,
            Geometry(before, resume, self._windows),
            temperature=temperature,
            scale=scale,
            biases=biases,
            observe=observe,
        )
        sequence = self._behind(prefix, room_tokens)
        sequence.shift = resume - before
        return Continuation(sequence, seen)

    def shape(self, prefix: Prefix) -> Shape:
        """What all passages of this model have in common."""
        layers, heads, _, width = prefix.states.keys.shape
        return Shape(layers, heads, width, prefix.states.keys.dtype, prefix.states.keys.device)

    def origin(self, prefix: Prefix, kind: str) -> Origin:
        """What states behind this prefix depend on."""
        shape, config = self.shape(prefix), self._network.config
        method = getattr(self._network, "position_method", "native")
        rotary = json.dumps(getattr(config, "rope_parameters", None), sort_keys=True, default=str)
        return Origin(
            model=self.revision,
            tokenizer=_digest(self._model.chat.identity),
            prefix=ids_digest(prefix.ids),
            positions=f"from {len(prefix.ids)}, rotary {_digest(rotary)[:16]}, {method}",
            dtype=str(shape.dtype).removeprefix("torch."),
            layout=f"{shape.layers} layers, {shape.heads} heads, {shape.width} wide",
            format=kind,
        )

    def check_fits(self, tokens: int) -> None:
        """Raise PromptTooLongError for more tokens than the model's window."""
        if tokens > self._model.window_tokens:
            raise PromptTooLongError(
                f"Prefix, longest passage, question and answer need {tokens:,} positions; "
                f"{self._model.name} has {self._model.window_tokens:,}.",
                remedy="Use shorter passages: any number of them share the same positions.",
            )

    def _read(self, sequence: Sequence, ids: Several[int], cancelled: Cancelled) -> None:
        if self._model.reader.read(sequence, ids, cancelled) is None:
            raise WorkCancelledError("The request was cancelled while a passage was read.")

    def _behind(self, prefix: Prefix | None, room_tokens: int) -> Sequence:
        """A sequence that has read the prefix, with room for more."""
        before = len(prefix.ids) if prefix else 0
        cache = new_cache(self._network.config, before + room_tokens)
        if prefix is not None:
            states = prefix.states
            for layer, keys, values in zip(cache.layers, states.keys, states.values, strict=True):
                layer.update(keys[None], values[None])
        return Sequence(self._model.engine, cache, before=before)


def _states(cache: Cache, start: int) -> KvStates:
    """What the cache holds from token ``start`` on, in memory of its own."""
    keys, values = (
        stacked([getattr(layer, name)[0, :, start:] for layer in cache.layers]) for name in ("keys", "values")
    )
    return KvStates(keys, values)


def _windows(config: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - a transformers config
    """Each layer's sliding window, None where a layer sees everything."""
    config = config.get_text_config(decoder=True)
    window, layers = getattr(config, "sliding_window", None), config.num_hidden_layers
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    kinds: list[str] | None = getattr(config, "layer_types", None)
    if kinds is None:
        return tuple(window for _ in range(layers))
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

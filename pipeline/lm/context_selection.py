"""Which of many cached passages to attend: the model's own heads look at the cached keys.

A few heads of a model attend to what answers a question. Their queries come from the question read behind
the prefix alone, their keys are in the cache, so hundreds of passages are scored without reading any.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigurationError
from pipeline.lm.attention import Attending, attend_lse
from pipeline.lm.context_options import ContextCalibration
from pipeline.lm.context_reader import PassageReader, Prefix
from pipeline.lm.kv_identity import PassageKey
from pipeline.lm.kv_store import Found, Held, KvStore

Hold = Callable[[Sequence[int]], AbstractContextManager[list[Held]]]
Heads = Sequence[tuple[int, int]]
Floats = NDArray[np.float64]

_SHARE_OF_MEMORY = 0.5


class Watched:
    """An observer that keeps what some heads ask, and how much of it the prompt itself answers."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        self._layers: dict[int, tuple[Attending, torch.Tensor]] = {}

    def see(self, attending: Attending) -> None:
        """Keep a layer's queries, and the logarithm of what they find in prefix and question."""
        if attending.layer in {layer for layer, _ in self.heads}:
            own = attend_lse(replace(attending, mask=None))[1]
            self._layers[attending.layer] = (attending, own)

    def queries(self) -> torch.Tensor:
        """Float32 (heads, L, D), scaled so that a dot product with a key is a logit."""
        return torch.stack(
            [self._layers[layer][0].query[0, head].float() * self._layers[layer][0].scaling
             for layer, head in self.heads]
        )  # fmt: skip

    def own(self) -> torch.Tensor:
        """Logarithm of the denominator over prefix and question, float32 (heads, L)."""
        return torch.stack([self._layers[layer][1][0, head] for layer, head in self.heads])


@dataclass(frozen=True, slots=True)
class Pool:
    """Passages to choose from; ``hold`` gives the states of some, by index. ``found`` is filled with where
    the states of those that had to be held were at first."""

    passages: Sequence[PassageKey]
    store: KvStore
    hold: Hold
    found: dict[PassageKey, Found] = field(default_factory=dict)

    def batches(self) -> list[list[int]]:
        """Indices in groups whose states fit a share of the memory budget."""
        most = max(int(_SHARE_OF_MEMORY * self.store.memory.budget_bytes), 1)
        groups: list[list[int]] = [[]]
        used = 0
        for i, passage in enumerate(self.passages):
            size = self.store.passage_bytes(passage.tokens)
            if groups[-1] and used + size > most:
                groups.append([])
                used = 0
            groups[-1].append(i)
            used += size
        return groups


class Candidates:
    """Scores passages for a question. Thread-safe."""

    def __init__(
        self,
        reader: PassageReader,
        prefix: Prefix,
        calibration: ContextCalibration | None,
        key_bytes: int,
    ) -> None:
        """``key_bytes`` bounds the heads' keys that are kept beside the states, so that passages which were
        scored before are scored again without reading their states."""
        self._key_bytes = key_bytes
        self._reader = reader
        self._prefix = prefix
        self._heads: Heads = calibration.heads if calibration else ()
        self._weight = calibration.weight if calibration and calibration.heads else 0.0
        self._keys: OrderedDict[PassageKey, torch.Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def scores(self, tail: Sequence[int], pool: Pool, retrieved: Sequence[float]) -> list[float]:
        """One score a passage: z-scores of the heads' and the retriever's, weighted as calibrated.

        Without calibrated heads these are the retriever's scores. Passages whose keys are not at hand are
        held a few at a time, so any number of candidates fits the memory budget.
        """
        if not self._weight:
            return list(retrieved)
        looked = np.asarray(self.looks(tail, pool))
        fused = self._weight * looked + (1 - self._weight) * standardised(np.asarray(retrieved, np.float64))
        return [float(score) for score in fused]

    def looks(self, tail: Sequence[int], pool: Pool) -> list[float]:
        """One score a passage by the calibrated heads alone: the mean of their z-scored masses."""
        looked = standardised(self.masses(tail, pool, self._heads)).mean(0)
        return [float(score) for score in looked]

    def masses(self, tail: Sequence[int], pool: Pool, heads: Heads) -> Floats:
        """Attention mass (heads, passages) that the tokens of ``tail`` pay to each passage, averaged."""
        watched = self._asked(tail, max(passage.tokens for passage in pool.passages), heads)
        queries, own = watched.queries(), watched.own()
        found: list[torch.Tensor] = []
        for some in pool.batches():
            keys = self._head_keys(some, pool, heads)
            logits = queries @ torch.cat(keys, 1).float().transpose(1, 2)
            found += [part.logsumexp(-1) for part in logits.split([key.shape[1] for key in keys], -1)]
        lses = torch.stack(found)
        total = torch.logaddexp(lses.logsumexp(0), own)
        masses: Floats = (lses - total).exp().mean(-1).T.cpu().double().numpy()
        return masses

    def _asked(self, tail: Sequence[int], longest_tokens: int, heads: Heads) -> Watched:
        """The question behind the prefix alone, at the positions it has behind the passages."""
        layers, per_layer = self._reader.heads
        for layer, head in heads:
            if not (0 <= layer < layers and 0 <= head < per_layer):
                raise ConfigurationError(
                    f"No head ({layer}, {head}) is in a model of {layers} layers with {per_layer} each.",
                    remedy="Calibrate again for this model.",
                )
        watched = Watched(heads)
        behind = self._reader.resume(
            self._prefix, [], room_tokens=len(tail), temperature=1.0, scale=1.0, passage_tokens=longest_tokens
        )
        behind.read(tail, observers=(watched,))
        return watched

    def _head_keys(self, some: Sequence[int], pool: Pool, heads: Heads) -> list[torch.Tensor]:
        """Keys (heads, T, D) of each of these passages, from a small cache of their own or from the store."""
        cached, passages, store = heads is self._heads, pool.passages, pool.store
        with self._lock:
            known = {i: self._keys[passages[i]] for i in some if cached and passages[i] in self._keys}
            for i in known:
                self._keys.move_to_end(passages[i])
        missing = [i for i in some if i not in known]
        if missing:
            groups = self._reader.heads[1] // store.shape.heads
            with pool.hold(missing) as held:
                for i, one in zip(missing, held, strict=True):
                    pool.found.setdefault(one.key, one.found)
                    keys = store.states(one).keys
                    known[i] = torch.stack([keys[layer, head // groups] for layer, head in heads])
        if cached:
            self._remember({passages[i]: known[i] for i in missing})
        return [known[i] for i in some]

    def _remember(self, new: dict[PassageKey, torch.Tensor]) -> None:
        with self._lock:
            for passage, keys in new.items():
                if passage not in self._keys:
                    self._keys[passage] = keys
                    self._bytes += keys.nbytes
            while self._bytes > self._key_bytes:
                self._bytes -= self._keys.popitem(last=False)[1].nbytes


def standardised(values: Floats) -> Floats:
    """Z-scores along the last axis; zeros where all values are equal."""
    spread = values.std(-1, keepdims=True)
    scores: Floats = (values - values.mean(-1, keepdims=True)) / np.where(spread > 1e-12, spread, 1.0)
    return scores

"""Prompts read by one network: a part at a time, beginning with what is known already.

Importing this module is cheap; torch is imported when something is read.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Several
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.lm.engine import Engine
from pipeline.machine import processor

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from pipeline.lm.prefixes import PrefixStore
    from pipeline.lm.sequence import Sequence
    from pipeline.lm.step_costs import StepCosts

PREFILL_TOKENS = 256
"""Prompt tokens of one step: cancellation is noticed, and other requests come along, this often."""
GPU_PREFILL_TOKENS = 2048
"""The same on a GPU, which reads so many in the time that a processor takes for a few."""
_PART_RATE = 0.3
_MEASURE_AGAIN_SECONDS = 300.0


class PromptReader:
    """Reads prompts for any number of requests."""

    def __init__(
        self, engine: Engine, prefix_bytes: int, window_tokens: int, revision: str, costs_folder: Path | None
    ) -> None:
        """``prefix_bytes`` bounds the states kept from earlier requests; 0 keeps none. ``revision`` names the
        weights; in ``costs_folder``, if there is one, is kept how long their passes take."""
        self.engine = engine
        self._revision = revision
        self._costs_folder = costs_folder
        self._costs: StepCosts | None = None
        self._measured_at = 0.0
        self._measuring = threading.Lock()
        self._prefix_bytes = prefix_bytes
        self._window_tokens = window_tokens
        self.part_seconds: float | None = None
        """How long a whole part near the beginning of a prompt takes, by the latest ones; None before any."""

    def new_cache(self, capacity_tokens: int) -> Cache:
        """An empty cache. Raises ModelMemoryError only when it is written to."""
        from pipeline.lm.kv_cache import new_cache

        return new_cache(self.engine.network.config, capacity_tokens)

    def begin(self, tenant: str | None, ids: Several[int], room_tokens: int) -> Sequence:
        """A sequence that knows the longest beginning of ``ids`` that is at hand (none without a tenant),
        with room for all of them and ``room_tokens`` more."""
        from pipeline.lm.loading import memory_errors
        from pipeline.lm.sequence import Sequence

        capacity = len(ids) + room_tokens
        with memory_errors("copying known states"):
            keeps = self._prefix_bytes and tenant is not None
            found = self._prefixes.begin(tenant or "", ids, capacity) if keeps else None
        if found is None:
            return Sequence(self.engine, self.new_cache(capacity))
        cache, known = found
        return Sequence(self.engine, cache, ids[:known])

    def known_tokens(self, tenant: str, ids: Several[int]) -> int:
        """Tokens at the beginning of ``ids`` that need not be read."""
        return self._prefixes.known_tokens(tenant, ids) if self._prefix_bytes else 0

    def read(
        self, sequence: Sequence, ids: Several[int], cancelled: Callable[[], bool]
    ) -> torch.Tensor | None:
        """Read ``ids`` in parts, smaller ones while others are writing, who then wait a shorter time.

        Logits (1, V) after the last, or None once ``cancelled()``.
        """
        logits = None
        at = 0
        while at < len(ids):
            if cancelled():
                return None
            part = self.part_tokens
            if self.engine.writing:
                part = max(part // 4, 1)
            before = sequence.length_tokens
            logits = sequence.read(ids[at : at + part])
            if sequence.seconds is not None and part == self.part_tokens and part <= len(ids) - at:
                self._learn_part(before, sequence.seconds)
            at += part
        return logits

    def _learn_part(self, before: int, seconds: float) -> None:
        if before <= 4 * self.part_tokens:
            known = self.part_seconds or seconds
            self.part_seconds = known + _PART_RATE * (seconds - known)

    @property
    def part_tokens(self) -> int:
        """Most prompt tokens of one step."""
        return PREFILL_TOKENS if self.engine.network.device.type == "cpu" else GPU_PREFILL_TOKENS

    def keep(self, tenant: str | None, sequence: Sequence) -> None:
        """Keep what a sequence has read for later requests of this tenant, if there is one; it must not be
        read on. Of what was read under a plan only what came before the plan began is kept."""
        if tenant is None or sequence.before or sequence.shift:
            return
        if sequence.plan is not None:
            if not (sequence.plan.begins and sequence.can_roll_back):
                return
            sequence.roll_back(min(sequence.plan.begins, sequence.length_tokens))
        if self._prefix_bytes:
            self._prefixes.keep(tenant, sequence.ids, sequence.cache)

    @cached_property
    def _prefixes(self) -> PrefixStore:
        from pipeline.lm.prefixes import PrefixStore

        return PrefixStore(self._prefix_bytes)

    @property
    def costs(self) -> StepCosts:
        """What passes of this network take, measured at first use on this machine (4 seconds on a CPU), and
        again after a while if something disturbed that."""
        with self._measuring:
            if self._costs is None or (self._costs.is_provisional and self._may_measure_again()):
                self._costs = self._measured()
                self._measured_at = time.monotonic()
            return self._costs

    def _may_measure_again(self) -> bool:
        return not self.engine.busy and time.monotonic() > self._measured_at + _MEASURE_AGAIN_SECONDS

    def _measured(self) -> StepCosts:
        from pipeline.lm.step_costs import measure

        longest = min(4096, max(self._window_tokens - 32, 2))
        contexts = sorted({max(1, longest // 8), longest})
        file = None
        if self._costs_folder is not None:
            file = self._costs_folder / f"{self._circumstances(contexts)}.json"
        return measure(self._timed, contexts, file, lambda: self.engine.busy)

    def _circumstances(self, contexts: Several[int]) -> str:
        """A name for all that decides how long these passes take."""
        import torch

        network = self.engine.network
        device = network.device
        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        kinds = {type(layer).__name__ for layer in network.modules()}  # OneDnnLinear takes another time
        circumstances = (
            *(self._revision, network.dtype, network.config._attn_implementation, *contexts),
            *sorted(kinds),
            *(device.type, hardware, torch.get_num_threads(), os.cpu_count(), torch.__version__),
        )
        return hashlib.sha256("\n".join(map(str, circumstances)).encode()).hexdigest()[:32]

    def _timed(self, context_tokens: int, new_tokens: int) -> float:
        """Seconds of a pass that reads some tokens after empty states."""
        from pipeline.lm.kv_cache import fill
        from pipeline.lm.sequence import Sequence

        cache = self.new_cache(context_tokens + new_tokens)
        sequence = Sequence(self.engine, cache)
        sequence.read([0])  # tells the shape of the states
        fill(cache, context_tokens)
        sequence.ids = [0] * context_tokens
        began = time.perf_counter()
        sequence.read([0] * new_tokens, new_tokens)
        return sequence.seconds or time.perf_counter() - began

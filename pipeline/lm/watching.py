"""Prompts read for their attention: one at a time with a shared beginning, or many at once.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import PromptTooLongError, WorkCancelledError
from pipeline.lm.attention import Plan, following, require
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.observe import SpanMass
from pipeline.lm.sequence import Sequence

if TYPE_CHECKING:
    from pipeline.lm.model import LocalModel
    from pipeline.lm.spans import Span

_CHUNK_TOKENS = {"cpu": 256}
_BATCH_TOKENS = {"cpu": 2048}
_GPU_CHUNK_TOKENS = 4096
_GPU_BATCH_TOKENS = 49152


@dataclass(frozen=True, slots=True)
class Watched:
    """A prompt, passages as token spans, and the tokens whose attention to them is wanted."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    tokens: range


def watch(
    model: LocalModel, prompts: Several[Watched], cancelled: Callable[[], bool] = lambda: False
) -> list[torch.Tensor]:
    """Attention masses, float32 (layers, H, T, spans), of each prompt's watched tokens.

    What a prompt has in common with the one before at their beginning is read once, so a second question
    about the same passages costs little more than its own tokens. Raises ModelError for a family without
    support, PromptTooLongError, and WorkCancelledError within one step of ``cancelled()`` being true.
    """
    require(model.network, "Watching passages")
    for prompt in prompts:
        if len(prompt.ids) > model.window_tokens:
            raise PromptTooLongError(
                f"The prompt has {len(prompt.ids):,} tokens; {model.name} reads {model.window_tokens:,}.",
                remedy="Rank fewer or shorter passages.",
            )
    sequence = Sequence(model.engine, new_cache(model.network.config, max(len(p.ids) for p in prompts)))
    chunk = _CHUNK_TOKENS.get(model.network.device.type, _GPU_CHUNK_TOKENS)
    masses = []
    for prompt in prompts:
        sequence.roll_back(min(_common(sequence.ids, prompt.ids), prompt.tokens.start))
        seen = SpanMass([prompt.spans], prompt.tokens)
        sequence.plan = Plan(observers=(seen,))
        for start in range(sequence.length_tokens, prompt.tokens.stop, chunk):
            if cancelled():
                raise WorkCancelledError("The ordering of passages was cancelled.")
            sequence.read(prompt.ids[start : min(start + chunk, prompt.tokens.stop)])
        masses.append(seen.masses()[:, 0])
    return masses


def watch_batch(
    model: LocalModel, prompts: Several[Watched], progress: Callable[[int], None] = lambda _: None
) -> list[torch.Tensor]:
    """As :func:`watch` for prompts of their own each, several in one forward pass (they are padded at the
    end, where causal attention does not look). ``progress`` is told how many were finished."""
    require(model.network, "Watching passages")
    results: dict[int, torch.Tensor] = {}
    for batch in _batches(model, [len(prompt.ids) for prompt in prompts]):
        chosen = [prompts[n] for n in batch]
        rows = range(min(p.tokens.start for p in chosen), max(p.tokens.stop for p in chosen))
        most = max(len(p.spans) for p in chosen)
        seen = SpanMass([[*p.spans, *[p.spans[-1]] * (most - len(p.spans))] for p in chosen], rows)
        _forward(model, [p.ids for p in chosen], 1, Plan(observers=(seen,)))
        masses = seen.masses()
        for at, n in enumerate(batch):
            first, last = (edge - rows.start for edge in (prompts[n].tokens.start, prompts[n].tokens.stop))
            results[n] = masses[:, at, :, first:last, : len(prompts[n].spans)]
        progress(len(batch))
    return [results[n] for n in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """``logprob``: the mean natural logarithm of the probability of an answer's tokens. ``greedy``: whether
    greedy decoding would begin with them."""

    logprob: float
    greedy: bool


def logprob_batch(
    model: LocalModel,
    prompts: Several[tuple[Several[int], Several[int]]],
    progress: Callable[[int], None] = lambda _: None,
    plan: Callable[[Several[int]], Plan | None] = lambda _: None,
) -> list[Likelihood]:
    """How likely each prompt's answer tokens are, several prompts in one forward pass.

    ``plan`` makes the plan for the prompts with these numbers, which are read in this sequence.
    """
    results: dict[int, Likelihood] = {}
    for batch in _batches(model, [len(ids) + len(answer) for ids, answer in prompts]):
        chosen = [prompts[n] for n in batch]
        longest = max(len(ids) + len(answer) for ids, answer in chosen) - 1
        kept = longest - min(len(ids) for ids, _ in chosen) + 1
        logits = _forward(model, [[*ids, *answer[:-1]] for ids, answer in chosen], kept, plan(batch))
        for at, (n, (ids, answer)) in enumerate(zip(batch, chosen, strict=True)):
            first = len(ids) - 1 - (longest - kept)
            rows = logits[at, first : first + len(answer)].float().log_softmax(-1)
            targets = torch.tensor(answer, device=rows.device)[:, None]
            greedy = bool((rows.argmax(-1, keepdim=True) == targets).all())
            results[n] = Likelihood(float(rows.gather(-1, targets).mean()), greedy)
        progress(len(batch))
    return [results[n] for n in range(len(prompts))]


def _forward(
    model: LocalModel, prompts: Several[Several[int]], keep: int, plan: Plan | None = None
) -> torch.Tensor:
    """Logits (B, keep, V) at the last positions of prompts padded at the end."""
    longest = max(map(len, prompts))
    padded = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in prompts])
    network: Any = model.network
    with torch.inference_mode(), following(plan):
        result = network(input_ids=padded.to(network.device), use_cache=False, logits_to_keep=keep)
    logits: torch.Tensor = result.logits
    return logits


def _batches(model: LocalModel, lengths: Several[int]) -> Iterator[list[int]]:
    """Indices of prompts of like length, together within what the device computes at once."""
    most = _BATCH_TOKENS.get(model.network.device.type, _GPU_BATCH_TOKENS)
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _common(one: Several[int], other: Several[int]) -> int:
    """Tokens at the beginning that both share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))

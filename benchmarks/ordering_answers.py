"""Greedy answers of ``benchmarks.ordering``, plain and context-aware, many at once."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.ordering_trials import contains
from pipeline.lm.model import LocalModel
from pipeline.prompt import place

GENERATED = (
    "given", "retriever", "middle calibrated", "middle fused", "retriever, compressed to 50%", "oracle",
    "closed book",
)  # fmt: skip
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
TOKENS = 20


def exact_matches(model: LocalModel, cells: Any, asked: Any, orders: Any) -> dict[str, list[int]]:
    """Whether a greedy answer of 20 tokens says an accepted answer; equal prompts are answered once."""
    prompts: dict[tuple[int, ...], int] = {}
    wanted = []
    for name in (name for name in GENERATED if name in orders):
        for (one, _, n), hits in zip(asked, orders[name], strict=True):
            ids = tuple(model.chat.prompt_ids(place(one.question, hits).messages))
            wanted.append((name, n, prompts.setdefault(ids, len(prompts))))
    texts = written(model, [list(ids) for ids in prompts], TOKENS)
    found: dict[str, list[int]] = {}
    for name, n, at in wanted:
        found.setdefault(name, []).append(
            int(any(contains(texts[at], answer) for answer in cells[n]["answers"]))
        )
    return found


def contrasts(model: LocalModel, cells: Any, orders: Any) -> dict[str, Any]:
    """Context-aware decoding (Shi et al. 2023, equation 3) at several strengths: mean log-probability of the
    reference answer, and whether the greedy answer says an accepted one."""
    pairs = [
        tuple(model.chat.prompt_ids(place(cell["question"], shown).messages) for shown in (hits, ()))
        for cell, hits in zip(cells, orders, strict=True)
    ]
    answers = [model.chat.encode(cell["answers"][0]) for cell in cells]
    both = [
        tuple(_answer_logits(model, ids, answer) for ids in pair)
        for pair, answer in zip(pairs, answers, strict=True)
    ]
    found: dict[str, Any] = {}
    for strength in STRENGTHS:
        logprobs = []
        for of_pair, answer in zip(both, answers, strict=True):
            logits = mixed(*of_pair, strength)
            targets = torch.tensor(answer, device=logits.device)[:, None]
            logprobs.append(round(float(logits.log_softmax(-1).gather(-1, targets).mean()), 4))
        texts = written(
            model, [list(full) for full, _ in pairs], TOKENS, [list(bare) for _, bare in pairs], strength
        )
        match = [
            int(any(contains(text, answer) for answer in cell["answers"]))
            for text, cell in zip(texts, cells, strict=True)
        ]
        found[str(strength)] = {"logprob": logprobs, "match": match}
    return found


def mixed(with_context: Any, without: Any, strength: float) -> Any:
    """Logits that prefer what the context says: ``(1 + a) * with - a * without``."""
    return (1 + strength) * with_context.float() - strength * without.float()


def _answer_logits(model: LocalModel, ids: list[int], answer: list[int]) -> Any:
    tokens = torch.tensor([[*ids, *answer[:-1]]], device=model.network.device)
    with torch.inference_mode():
        return model.network(input_ids=tokens, use_cache=False, logits_to_keep=len(answer)).logits[0]


def written(
    model: LocalModel,
    prompts: list[list[int]],
    tokens: int,
    bare: list[list[int]] | None = None,
    strength: float = 0.0,
) -> list[str]:
    """Greedy continuations, many at once, padded on the left; with ``bare`` prompts, context-aware ones."""
    most = 300_000 if model.network.device.type == "cuda" else 2_000
    texts: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
    while order:
        count = max(1, most // len(prompts[order[0]]))
        batch, order = order[:count], order[count:]
        readers = [_Batch(model, [prompts[n] for n in batch])]
        if bare is not None and strength:
            readers.append(_Batch(model, [bare[n] for n in batch]))
        chosen: list[Any] = []
        for _ in range(tokens):
            logits = [reader.logits for reader in readers]
            best = (mixed(*logits, strength) if len(logits) == 2 else logits[0]).argmax(-1, keepdim=True)
            chosen.append(best)
            for reader in readers:
                reader.read(best)
        for n, row in zip(batch, torch.cat(chosen, 1).tolist(), strict=True):
            ends = [at for at, token in enumerate(row) if token in model._ends]
            texts[n] = model.chat.decode(row[: ends[0]] if ends else row)
    return [texts[n] for n in range(len(prompts))]


class _Batch:
    """Prompts of different lengths that are written on together."""

    def __init__(self, model: LocalModel, prompts: list[list[int]]) -> None:
        from transformers import DynamicCache

        longest = max(map(len, prompts))
        self._network, device = model.network, model.network.device
        self._cache = DynamicCache(config=self._network.config)
        self._mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=device)
        self._read(ids, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def read(self, tokens: Any) -> None:
        """Read one more token (B, 1) of each."""
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], 1)
        self._read(tokens, self._mask.sum(-1, keepdim=True) - 1)

    def _read(self, ids: Any, positions: Any) -> None:
        with torch.inference_mode():
            self.logits = self._network(
                input_ids=ids, attention_mask=self._mask, position_ids=positions, past_key_values=self._cache,
                use_cache=True, logits_to_keep=1,
            ).logits[:, -1].float()  # fmt: skip

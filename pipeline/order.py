"""Hits -> Context: drop near-duplicates, cut to the token budget, put passages in reading order.

Overlapping neighbours were merged by retrieval; here passages are only dropped, trimmed or moved.
Where a model looks first decides the order: SmolLM2-135M shows recency (gold passage last is best),
others a U ("Lost in the Middle", Liu et al. 2023), so the order is a setting of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from pipeline.duplicates import Distinct
from pipeline.errors import ConfigurationError
from pipeline.sentences import sentences
from pipeline.types import Context, Hit

ReadingOrder = Literal["score", "reverse", "edges", "document"]


def arrange(
    hits: Sequence[Hit],
    *,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
    order: ReadingOrder = "score",
) -> Context:
    """The passages a model reads, together at most ``budget_tokens`` by ``count_tokens``.

    Passages are taken best first; one that does not fit is skipped for later ones that do, and only
    the very best is trimmed to its leading sentences, so that something is read even in a tiny window.
    ``order``: "score" best first, "reverse" best last, "edges" best at both ends, "document" as
    written. ``Context.dropped`` says what was left out and why. Raises ConfigurationError for an
    unknown order or a budget below zero.
    """
    if order not in get_args(ReadingOrder):
        raise ConfigurationError(
            f"There is no reading order {order!r}.",
            remedy=f"Choose from: {', '.join(get_args(ReadingOrder))}.",
        )
    if budget_tokens < 0:
        raise ConfigurationError(
            f"The context budget is {budget_tokens} tokens.", remedy="Give a budget of 0 or more."
        )
    best_first = sorted(hits, key=lambda hit: -hit.score)
    empty = [f"{_name(hit)}: there is no text in it" for hit in best_first if not hit.text.strip()]
    distinct, dropped = _without_duplicates([hit for hit in best_first if hit.text.strip()])
    dropped += empty
    kept: list[Hit] = []
    used = 0
    for hit in distinct:
        tokens = count_tokens(hit.text)
        if used + tokens > budget_tokens and not kept:
            trimmed = _trim(hit, budget_tokens, count_tokens)
            if trimmed is not None:
                dropped.append(f"{_name(hit)}: trimmed from {tokens} to {trimmed.tokens} tokens")
                kept.append(trimmed)
                used += trimmed.tokens
                continue
        if used + tokens > budget_tokens:
            dropped.append(f"{_name(hit)}: {tokens} tokens do not fit the budget of {budget_tokens}")
            continue
        kept.append(replace(hit, tokens=tokens))
        used += tokens
    return Context(tuple(_in_order(kept, order)), used, tuple(dropped))


def placed_by(hits: Sequence[Hit], scores: Sequence[float], order: ReadingOrder) -> list[Hit]:
    """The hits in reading order by these scores, one a hit; equal scores keep their sequence."""
    ranked = sorted(range(len(hits)), key=lambda n: -scores[n])
    return _in_order([hits[n] for n in ranked], order)


def _in_order(best_first: list[Hit], order: ReadingOrder) -> list[Hit]:
    if order == "reverse":
        return best_first[::-1]
    if order == "edges":
        return best_first[0::2] + best_first[1::2][::-1]
    if order == "document":
        first_seen = {hit.document_id: rank for rank, hit in reversed(list(enumerate(best_first)))}
        return sorted(best_first, key=lambda hit: (first_seen[hit.document_id], hit.start))
    return best_first


def _without_duplicates(best_first: list[Hit]) -> tuple[list[Hit], list[str]]:
    distinct = Distinct()
    kept: list[Hit] = []
    dropped = []
    for hit in best_first:
        twin = distinct.twin(hit.text)
        if twin is None:
            kept.append(hit)
        else:
            dropped.append(f"{_name(hit)}: nearly the same as {_name(kept[twin])}")
    return kept, dropped


def _trim(hit: Hit, budget_tokens: int, count_tokens: Callable[[str], int]) -> Hit | None:
    """The longest run of leading sentences that fits, or None if not even the first does."""
    spans = sentences(hit.text)
    for _, end in reversed(spans):
        text = hit.text[:end]
        tokens = count_tokens(text)
        if text.strip() and tokens <= budget_tokens:
            return replace(hit, text=text, end=hit.start + end, tokens=tokens)
    return None


def _name(hit: Hit) -> str:
    return f"{hit.title or hit.document_id} [{hit.start}:{hit.end}]"

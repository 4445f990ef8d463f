"""Extractive compression: passages shortened to the sentences that carry the evidence.

Whole sentences, never single words: a model reads what was written (compare RECOMP's extractive compressor,
Xu et al. 2023). What was left out is marked, and every kept character knows its place in the document, so
citations are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import ConfigurationError
from pipeline.types import Hit

Span = tuple[int, int]
GAP = " … "


@dataclass(frozen=True, slots=True)
class Extract:
    """What is left of a passage: ``hit.text[start:end]`` of every span, in order."""

    hit: Hit
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The kept sentences, with a mark where something was left out between them."""
        return GAP.join(self.hit.text[start:end] for start, end in self.spans)

    def origin(self, offset: int) -> int | None:
        """The document's character that stands at ``offset`` of :attr:`text`; None inside a mark."""
        at = 0
        for start, end in self.spans:
            if at <= offset < at + end - start:
                return self.hit.start + start + offset - at
            at += end - start + len(GAP)
        return None

    def shortened(self) -> Hit:
        """The hit as the model reads it. Its text is no longer that of the document's span."""
        return replace(self.hit, text=self.text)


def compress(
    passages: Sequence[Hit],
    scores: Mapping[tuple[str, int, int], float],
    *,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> list[Extract]:
    """The passages, in their order, with their best sentences within ``budget_tokens``, by ``count_tokens``.

    ``scores`` are of sentences, named by the passage's ``chunk_id`` and the sentence's span in its text.
    Sentences are taken best first; one that does not fit is passed over for those that do. A passage that
    fits whole with the others is not touched. Raises ConfigurationError for a budget below 1.
    """
    if budget_tokens < 1:
        raise ConfigurationError(
            f"The budget of compressed passages is {budget_tokens} tokens.", remedy="Set 1 or more."
        )
    if sum(count_tokens(hit.text) for hit in passages) <= budget_tokens:
        return [Extract(hit, ((0, len(hit.text)),)) for hit in passages]
    by_id = {hit.chunk_id: hit for hit in passages}
    kept: dict[str, list[Span]] = {}
    used: dict[str, int] = {}
    for (chunk_id, start, end), _ in sorted(scores.items(), key=lambda item: -item[1]):
        if chunk_id not in by_id:
            continue
        spans = sorted([*kept.get(chunk_id, []), (start, end)])
        tokens = count_tokens(_extract(by_id[chunk_id], spans).text)
        if sum(used.values()) - used.get(chunk_id, 0) + tokens <= budget_tokens:
            kept[chunk_id], used[chunk_id] = spans, tokens
    return [_extract(hit, kept[hit.chunk_id]) for hit in passages if hit.chunk_id in kept]


def _extract(hit: Hit, spans: Sequence[Span]) -> Extract:
    """Spans joined where only white space stands between them."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and not hit.text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return Extract(hit, tuple(joined))

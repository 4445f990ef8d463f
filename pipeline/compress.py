"""Extractive compression: passages shortened to the sentences that carry the evidence.

Whole sentences, never single words: a model reads what was written (compare RECOMP's extractive compressor,
Xu et al. 2023). What was left out is marked, and every kept character knows its place in the document, so
citations are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import ConfigurationError
from pipeline.evidence import Evidence, Ranking
from pipeline.seams import LanguageModel
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
    scored: Sequence[Sequence[tuple[int, int, float]]],
    *,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> list[Extract]:
    """The passages, in their order, with their best sentences within ``budget_tokens``, by ``count_tokens``.

    ``scored`` are, for each passage, its sentences: start and end in its text, and a score. Sentences are
    taken best first; one that does not fit is passed over for those that do, and a passage without any is
    left out. Passages that fit together are not touched. Raises ConfigurationError for a budget below 1.
    """
    if budget_tokens < 1:
        raise ConfigurationError(
            f"The budget of compressed passages is {budget_tokens} tokens.", remedy="Set 1 or more."
        )
    if sum(count_tokens(hit.text) for hit in passages) <= budget_tokens:
        return [Extract(hit, ((0, len(hit.text)),)) for hit in passages]
    kept: dict[int, list[Span]] = {}
    used: dict[int, int] = {}
    best_first = sorted(
        (-score, n, start, end) for n, of_one in enumerate(scored) for start, end, score in of_one
    )
    for _, n, start, end in best_first:
        spans = sorted([*kept.get(n, []), (start, end)])
        tokens = count_tokens(_extract(passages[n], spans).text)
        if sum(used.values()) - used.get(n, 0) + tokens <= budget_tokens:
            kept[n], used[n] = spans, tokens
    return [_extract(passages[n], kept[n]) for n in sorted(kept)]


def shortened(
    hits: Sequence[Hit], read: Evidence, best: Ranking, model: LanguageModel, budget_tokens: int
) -> tuple[list[Hit], list[str]]:
    """The hits with the sentences that answer best within the model's tokens, and which hits are left out
    altogether. Citations come from the evidence, so they keep to the original text."""
    scores = dict(zip(best.order, best.scores, strict=True))
    places: dict[tuple[str, int], list[tuple[int, int, float]]] = {}
    for n, sentence in enumerate(read.sentences):
        found = places.setdefault((sentence.hit.chunk_id, sentence.hit.start), [])
        found.append((sentence.start, sentence.end, scores[n]))
    scored = [places.get((hit.chunk_id, hit.start), []) for hit in hits]
    extracts = compress(hits, scored, budget_tokens=budget_tokens, count_tokens=model.count_tokens)
    kept = {(extract.hit.chunk_id, extract.hit.start) for extract in extracts}
    dropped = [
        f"not in the prompt: {hit.title or hit.document_id} [{hit.start}:{hit.end}]: no sentence fits "
        f"{budget_tokens} compressed tokens"
        for hit in hits
        if (hit.chunk_id, hit.start) not in kept
    ]
    return [extract.shortened() for extract in extracts], dropped


def _extract(hit: Hit, spans: Sequence[Span]) -> Extract:
    """Spans joined where only white space stands between them."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and not hit.text[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return Extract(hit, tuple(joined))

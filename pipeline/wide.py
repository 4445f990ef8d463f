"""The same hits with much more around them: whole documents, or wide neighbourhoods, for a model that reads
long contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from pipeline import prompt
from pipeline.errors import NotFoundError
from pipeline.progress import Progress
from pipeline.recheck import Documents
from pipeline.seams import LanguageModel
from pipeline.types import Context, Document, Hit, Query

_SHRINK = 0.9
_HOPE = 1.2
_MOST_TOKEN_CHARS = 16
_NEAR_CHARS = 200


class Reading(Protocol):
    """The part of the configuration that says how much is read and written."""

    @property
    def long_tokens(self) -> int:
        """Tokens around the passages."""
        ...

    @property
    def max_tokens(self) -> int:
        """Most tokens to be written."""
        ...


def long_prompt(
    run: Progress,
    config: Reading,
    model: LanguageModel,
    built: prompt.Prompt,
    documents: Documents | None,
) -> prompt.Prompt:
    """The prompt over what stands around the passages of ``built``, or that one again, with the reason in
    ``degraded``, if none can be made. The trace shows both."""
    if documents is None:
        run.degraded.append("there are no documents to read beyond the passages")
        return built
    with run.timed("widen"):
        passages = sorted(built.context.passages, key=lambda hit: -hit.score)
        room = model.window_tokens - config.max_tokens - (built.tokens - built.context.tokens)
        budget = min(config.long_tokens, max(room, 0))
        hits = widened(
            passages, run.query, documents, budget, lambda text: model.count_tokens(prompt.neutral(text))
        )
        long = prompt.build(
            run.query.text,
            hits,
            model,
            budget_tokens=budget,
            max_tokens=config.max_tokens,
            order="document",
        )
    if long is None or not long.context.passages:
        run.degraded.append(f"nothing around the passages fits {model.name} ({model.window_tokens} tokens)")
        return built
    run.dropped += [f"not in the long context: {reason}" for reason in long.context.dropped]
    run.trace |= {"long_context": _places(long.context), "passages": _places(built.context)}
    run.usage["passage_prompt_tokens"] = built.tokens
    return long


def widened(
    hits: Sequence[Hit],
    query: Query,
    documents: Documents,
    budget_tokens: int,
    count_tokens: Callable[[str], int],
) -> tuple[Hit, ...]:
    """What stands around the hits, together at most ``budget_tokens``; documents in the order of their best
    hits, each one's text in its own order.

    A document that fits is given whole. Of one that does not, each hit gets an equal share of what is left,
    cut at line ends where there are some near; shares that touch are joined. Documents that vanished
    meanwhile and hits for which nothing is left are not in the result.
    """
    by_document: dict[str, list[Hit]] = {}
    for hit in hits:
        by_document.setdefault(hit.document_id, []).append(hit)
    left, wide = budget_tokens, []
    for number, (document_id, found) in enumerate(by_document.items()):
        try:
            document = documents.load(query.tenant, query.collection, document_id, found[0].version)
        except NotFoundError:
            continue
        share = (
            left if number + 1 == len(by_document) else max(left // 2, left // (len(by_document) - number))
        )
        for hit in _around(document, found, share, count_tokens):
            wide.append(hit)
            left -= hit.tokens
    return tuple(wide)


def _around(
    document: Document, hits: Sequence[Hit], budget_tokens: int, count_tokens: Callable[[str], int]
) -> list[Hit]:
    text = document.text
    if len(text) <= budget_tokens * _MOST_TOKEN_CHARS:
        whole = [_cut(document, hits[0], 0, len(text), count_tokens)]
        if whole[0].tokens <= budget_tokens:
            return whole
    known = sum(len(hit.text) for hit in hits) / max(1, sum(hit.tokens for hit in hits))
    chars = int(budget_tokens * known * _HOPE)
    while chars >= len(hits):
        pieces = _joined(
            [_span(text, hit, chars // len(hits)) for hit in hits if 0 <= hit.start < hit.end <= len(text)]
        )
        cut = [_cut(document, hits[0], start, end, count_tokens) for start, end in pieces]
        if sum(hit.tokens for hit in cut) <= budget_tokens:
            return cut
        chars = int(chars * _SHRINK)
    return []


def _span(text: str, hit: Hit, chars: int) -> tuple[int, int]:
    """So many characters around the middle of the hit, from line to line where lines are short."""
    middle = (hit.start + hit.end) // 2
    start, end = max(0, middle - chars // 2), min(len(text), middle + chars // 2)
    near = min(_NEAR_CHARS, chars // 8)
    line = text.find("\n", start, start + near)
    if start and 0 <= line < min(hit.start, end):
        start = line + 1
    line = text.rfind("\n", end - near, end)
    if end < len(text) and line >= max(hit.end, start):
        end = line
    return start, end


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _cut(document: Document, best: Hit, start: int, end: int, count_tokens: Callable[[str], int]) -> Hit:
    text = document.text[start:end]
    return replace(
        best, text=text, start=start, end=end, tokens=count_tokens(text), page_start=None, page_end=None
    )


def _places(context: Context) -> list[dict[str, str | int]]:
    """Where passages come from, for the trace."""
    return [
        {
            "document_id": hit.document_id,
            "title": hit.title,
            "start": hit.start,
            "end": hit.end,
            "tokens": hit.tokens,
        }
        for hit in context.passages
    ]

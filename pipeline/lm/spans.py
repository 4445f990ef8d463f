"""Where passages stand in a prompt, in tokens: exact also after the chat template and merges of tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.seams import Message

if TYPE_CHECKING:
    from pipeline.lm.chat import ChatFormat

Span = tuple[int, int]
"""Half-open range ``[start, end)``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Characters ``[start, end)`` of the content of message number ``message``."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Addressed:
    """A prompt's token ids and, for each place asked for, the range of tokens that spell it."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


def address(chat: ChatFormat, messages: Sequence[Message], places: Sequence[Place]) -> Addressed:
    """The ids that ``chat.prompt_ids(messages)`` gives, with the tokens of every place.

    A token belongs to a place if any of its characters does, so what was merged across an edge belongs to
    both sides. Raises InvalidRequestError for a place that is empty (or only white space that a template
    removed), and ModelError for a template that rewrites the text or a tokenizer without offsets.
    """
    text, special = chat.render(messages)
    stretches = _contents(chat, messages, text)
    ids, offsets = chat.encode_with_offsets(text, special=special)
    # Characters of tokens never go back, save those of added tokens, which spell none.
    firsts = list(accumulate((first for first, _ in offsets), max))
    lasts = list(accumulate((last for _, last in offsets), max))
    spans = []
    for place in places:
        content, (begin, end) = messages[place.message].content, stretches[place.message]
        plain = chat.plain(content)
        lead = 0 if end - begin == len(plain) else len(plain) - len(plain.lstrip())
        first, last = (
            min(max(begin + chat.plain_offset(content, at) - lead, begin), end)
            for at in (place.start, place.end)
        )
        span = bisect_right(lasts, first), bisect_left(firsts, last)
        if first >= last or span[0] >= span[1]:
            raise InvalidRequestError(
                f"The passage {content[place.start : place.end][:40]!r} has no tokens in the prompt.",
                remedy="Leave empty passages out.",
            )
        spans.append(span)
    return Addressed(tuple(ids), tuple(spans))


def _contents(chat: ChatFormat, messages: Sequence[Message], text: str) -> list[Span]:
    """The characters of the rendered text that each message's content takes, whole or stripped."""
    marks = [f"\ue000{n}\ue001" for n in range(len(messages))]
    skeleton, _ = chat.render([replace(m, content=mark) for m, mark in zip(messages, marks, strict=True)])
    plain = [chat.plain(message.content) for message in messages]
    for contents in (plain, [content.strip() for content in plain]):
        found, written, rest = [], "", skeleton
        for mark, content in zip(marks, contents, strict=True):
            if mark not in rest:  # a template may leave a message out
                found.append((len(written), len(written)))
                continue
            before, _, rest = rest.partition(mark)
            written += before
            found.append((len(written), len(written) + len(content)))
            written += content
        if written + rest == text:
            return found
    raise ModelError(
        "The model's chat template changes the text of messages, so passages cannot be found in the prompt.",
        remedy="Use an order that needs no attention (score, reverse, edges), or another model.",
    )

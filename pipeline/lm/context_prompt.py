"""The parts of a prompt whose passages are encoded apart: what stands before them, each one, what follows.

Each part is tokenised by itself and always in the same way, so a passage has the tokens that its cached
states are of, whatever question it is read for. Nothing in a passage says which number it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.prompt import SYSTEM, neutral
from pipeline.seams import Message

if TYPE_CHECKING:
    from pipeline.lm.chat import ChatFormat

_MARKER = "\u2063passages\u2063"


@dataclass(frozen=True, slots=True)
class Frame:
    """Token ids before all passages and after them (the question, up to where the model answers)."""

    head: tuple[int, ...]
    tail: tuple[int, ...]

    def sequential(self, passages: Sequence[Sequence[int]]) -> list[int]:
        """The same prompt with the passages one after the other, as a model reads it usually."""
        return [*self.head, *(token for passage in passages for token in passage), *self.tail]


def frame(chat: ChatFormat, question: str) -> Frame:
    """The prompt around the passages. The head is the same for every question.

    Raises ModelError for a chat template that changes or repeats what the user says.
    """
    asked = f"{_MARKER}Question: {neutral(question)}"
    text, special = chat.render((Message("system", SYSTEM), Message("user", asked)))
    if text.count(_MARKER) != 1:
        raise ModelError(
            "The model's chat template does not keep the user's text in one piece.",
            remedy="Read passages sequentially with this model: context = sequential.",
        )
    head, tail = text.split(_MARKER)
    head_ids, _ = chat.encode_with_offsets(head, special=special)
    tail_ids, _ = chat.encode_with_offsets(tail, special=False)
    return Frame(tuple(head_ids), tuple(tail_ids))


def passage_ids(chat: ChatFormat, title: str, text: str) -> list[int]:
    """Token ids of one passage with its markers."""
    named = f": {neutral(title)}" if title else ""
    return chat.encode(f"[passage{named}]\n{neutral(text)}\n[/passage]\n\n")

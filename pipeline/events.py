"""What an answer tells while it is being made, in this order: ``Retrieved``, ``Contextualised``, then
``TokenDelta`` and ``Cited`` in turn, and at last ``Done``. The texts of all deltas together are the text
of the answer: nothing is ever streamed that has not been verified."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import Answer, Context, Retrieval, Statement


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The search is done."""

    retrieval: Retrieval


@dataclass(frozen=True, slots=True)
class Contextualised:
    """These passages are read for the answer."""

    context: Context


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """More of the answer's text, final."""

    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A statement was verified, or found wanting (``supported`` False: it is not in the text)."""

    index: int
    statement: Statement


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer. Always the last event."""

    answer: Answer


Event = Retrieved | Contextualised | TokenDelta | Cited | Done

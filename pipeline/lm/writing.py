"""Tokens as they are chosen to the deltas a reader sees, up to where the answer ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.lm.text_stream import Detokenizer, StopStrings
from pipeline.seams import TextDelta

Mark = Literal["p", "d", "c"]
"""Where a token comes from: ``p`` plain decoding, ``d`` drafted and accepted, ``c`` chosen by the target
itself in a round of speculation, in place of or after the drafted ones."""


@dataclass(frozen=True, slots=True)
class Token:
    """One chosen token."""

    id: int
    mark: Mark = "p"


class Writer:
    """Writes one answer. ``finish`` is set, and nothing more may be written, once it has ended."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        ends: frozenset[int],
        stop: Sequence[str],
        most_tokens: int,
    ) -> None:
        """``ends`` are tokens that end an answer and are not part of it."""
        self._words = Detokenizer(decode)
        self._stops = StopStrings(stop)
        self._ends = ends
        self._left = most_tokens
        self._unreported = ""
        self.finish: str | None = None

    @property
    def left_tokens(self) -> int:
        """Tokens that may still be written."""
        return self._left

    def write(self, tokens: Sequence[Token]) -> Iterator[TextDelta]:
        """Deltas for the tokens, one for each that makes text certain. What follows the end is ignored."""
        for token in tokens:
            if self.finish is not None:
                return
            if token.id in self._ends:
                self.finish = "stop"
                return
            self._left -= 1
            self._unreported += token.mark
            text, stopped = self._stops.push(self._words.push(token.id))
            if stopped:
                self.finish = "stop"
            elif self._left == 0:
                self.finish = "length"
            if text:
                yield self._delta(text)

    def end(self, finish: str | None = None) -> TextDelta:
        """The last delta, with what was held back. ``finish`` for an end that did not come from tokens."""
        return self._delta(self._stops.flush(), self.finish or finish or "length")

    def _delta(self, text: str, finish: str | None = None) -> TextDelta:
        marks, self._unreported = self._unreported, ""
        return TextDelta(text, len(marks), finish, marks)

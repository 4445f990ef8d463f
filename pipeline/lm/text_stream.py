"""Tokens to text while they are being generated: no broken characters, no text beyond a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_MOST_INCOMPLETE_BYTES = 3  # of an unfinished UTF-8 character; there may be one token, and one sign, for each


class Detokenizer:
    """Turns token ids into text incrementally.

    The pieces of :meth:`push` together are ``decode`` of all ids, except that signs for undecodable
    bytes at the very end (a character whose last bytes never came) are dropped. ``decode`` is called with
    a few ids at a time, always with some that were shown already before the new ones, because many
    tokenizers treat the first token differently.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown_ids = 0  # ids, from the start of the list, whose text was given out completely
        self._shown_chars = 0  # characters of decode(self._ids) given out

    def push(self, token: int) -> str:
        """The text that became certain with this token; often empty inside an emoji."""
        self._ids.append(token)
        text = self._decode(self._ids)
        whole = text.rstrip(_INCOMPLETE)
        unfinished_ids = len(self._ids) - self._shown_ids
        if min(unfinished_ids, len(text) - len(whole)) > _MOST_INCOMPLETE_BYTES:
            whole = text[:-_MOST_INCOMPLETE_BYTES]  # not waiting for more bytes: really invalid
        piece = whole[self._shown_chars :]
        self._shown_chars = max(self._shown_chars, len(whole))
        if whole == text and whole:
            # Everything is certain, so what preceded the previous such moment is not needed any more.
            self._ids = self._ids[self._shown_ids :]
            self._shown_ids = len(self._ids)
            self._shown_chars = len(self._decode(self._ids))
        return piece


class StopStrings:
    """Cuts a stream of text where the first stop string is complete.

    Text that could still become a stop string is held back, so nothing of it is ever shown. If two stop
    strings end at the same character, the one that began first counts.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Text that may be shown now, and whether a stop string is complete."""
        text = self._held + piece
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, at the end of a text that did not stop."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that begin ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0

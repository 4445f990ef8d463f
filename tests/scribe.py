"""A language model that writes what it is told, a word at a time, and notices when it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import ModelError
from pipeline.seams import Message, Sampling, TextDelta


class Scribe:
    """``pause_seconds`` before each word; ``endless`` goes on until cancelled; ``breaks`` after words."""

    name = "scribe"
    window_tokens = 4096

    def __init__(
        self, text: str = "", *, pause_seconds: float = 0.0, endless: bool = False, breaks: bool = False
    ) -> None:
        self._words = text.split()
        self._pause_seconds = pause_seconds
        self._endless = endless
        self._breaks = breaks
        self.started = threading.Event()
        self.stopped = threading.Event()

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.count_tokens(message.content) for message in messages)

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[TextDelta]:
        self.started.set()
        words = iter(self._words)
        try:
            while not cancelled():
                time.sleep(self._pause_seconds)
                word = next(words, "word" if self._endless else None)
                if word is None:
                    if self._breaks:
                        raise ModelError("The scribe's pen broke.")
                    yield TextDelta("", 0, "stop")
                    return
                yield TextDelta(f"{word} ", 1)
            yield TextDelta("", 0, "cancelled")
        finally:
            self.stopped.set()

"""One answer while it is made: its text, statements, seconds, tokens, and what could not be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline.errors import WorkCancelledError
from pipeline.events import Cited, Event, TokenDelta
from pipeline.lm.context_options import NO_OPTIONS, ContextOptions
from pipeline.lm.request import PLAIN, Speculation
from pipeline.seams import TextDelta
from pipeline.types import Answer, Citation, Context, Ordering, Query, Statement


@dataclass(slots=True)
class Progress:
    """What accumulates while one answer is made."""

    query: Query
    cancelled: Callable[[], bool]
    context: ContextOptions = NO_OPTIONS
    speculation: Speculation = PLAIN
    timings: dict[str, float] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    attention: dict[str, float] = field(default_factory=dict)
    ordering: Ordering | None = None
    decoding: dict[str, int | float | str] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)
    has_enough: bool = False

    def ended(self) -> bool:
        """Whether the model is to stop: the answer is cancelled, or long enough."""
        return self.has_enough or self.cancelled()

    def enough(self) -> bool:
        """No more sentences are wanted. Whether the model has something left to tell: how it drafted."""
        self.has_enough = True
        return self.speculation.decoding != "plain"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to the stage, unless cancelled before it begins."""
        if self.cancelled():
            raise WorkCancelledError(f"The answer was cancelled before {stage}.")
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - began

    def listener(self) -> Callable[[TextDelta], None]:
        """Counts tokens and times generation (less the grounding of finished sentences) from now on."""
        began = time.perf_counter()

        written: list[tuple[str, str]] = []

        def heard(delta: TextDelta) -> None:
            seconds = time.perf_counter() - began
            self.timings.setdefault("first_token", seconds)
            self.timings["generate"] = seconds - self.timings.get("ground", 0.0)
            self.usage["completion_tokens"] += delta.tokens
            self.decoding |= delta.usage
            self.degraded += delta.degraded
            if delta.marks.strip("p") or written:
                # From the first drafted token on; what came before was decoded plainly.
                written.append((delta.text, delta.marks))
                self.trace["written"] = written

        return heard

    @property
    def supported(self) -> bool:
        """Whether there is a statement that stands."""
        return any(statement.supported for statement in self.statements)

    def say(self, text: str) -> Iterator[Event]:
        """Add a line to the answer's text."""
        piece = f"\n{text}" if self.text else text
        self.text.append(piece)
        yield TokenDelta(piece)

    def state(self, statement: Statement) -> Iterator[Event]:
        """Add a statement; only a supported one becomes text, with the numbers of its citations."""
        self.statements.append(statement)
        if statement.supported:
            numbering = distinct_citations(self.statements)
            marks = "".join(f" [{numbering.index(citation) + 1}]" for citation in statement.citations)
            quoted = statement.origin == "quoted"
            yield from self.say(f"“{statement.text}”{marks}" if quoted else f"{statement.text}{marks}")
        yield Cited(len(self.statements) - 1, statement)

    def finish(self, context: Context, *, found: bool, mode: Literal["extractive", "composed"]) -> Answer:
        """The answer as it stands; one that was not found states nothing."""
        return Answer(
            text="".join(self.text),
            found=found,
            statements=tuple(self.statements) if found else (),
            context=self._observed(replace(context, dropped=(*context.dropped, *self.dropped))),
            mode=mode,
            timings=dict(self.timings),
            usage=dict(self.usage),
            degraded=tuple(dict.fromkeys(self.degraded)),
            ordering=self.ordering,
            decoding=dict(self.decoding),
            trace=dict(self.trace),
        )

    def _observed(self, context: Context) -> Context:
        """The context with the attention that the model paid to passages among their scores."""
        if not self.attention:
            return context
        masses = ({"attention": self.attention[h.chunk_id]} if h.chunk_id in self.attention else {}
                  for h in context.passages)  # fmt: skip
        seen = zip(context.passages, masses, strict=True)
        return replace(context, passages=tuple(replace(h, scores={**h.scores, **mass}) for h, mass in seen))


def distinct_citations(statements: Sequence[Statement]) -> list[Citation]:
    """Citations of supported statements in order; ``[n]`` in an answer's text is the n-th, from 1."""
    return list(dict.fromkeys(c for s in statements if s.supported for c in s.citations))

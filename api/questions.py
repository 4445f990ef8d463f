"""A question on its way through the service: its limits, its place in the line, and what it used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Receive

from api.callers import Shelf
from api.service import Service
from api.work import Cancelled
from pipeline.answer import AnswerOptions
from pipeline.errors import LimitExceededError
from pipeline.events import Done, Event
from pipeline.types import Answer, Query

T = TypeVar("T")
_COUNTED = ("prompt_tokens", "completion_tokens", "context_tokens")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which collection, and how it is to be answered."""

    running: Service
    shelf: Shelf
    query: Query
    options: AnswerOptions

    async def answer(self, receive: Receive) -> Answer:
        """The whole answer. Raises before any work what a limit refuses."""
        last = (await self.events(receive))[-1]
        assert isinstance(last, Done)
        return last.answer

    async def events(self, receive: Receive) -> list[Event]:
        """Every event of the answer, once it is there."""
        await self._check()

        def work(cancelled: Cancelled) -> list[Event]:
            answerer = self.running.bench(self.shelf).answerer
            return list(answerer.stream(self.query, self.options, cancelled))

        made = await self.running.answering.run(receive, work)
        if isinstance(made[-1], Done):
            self._spend(made[-1].answer)
        return made

    async def stream(
        self, receive: Receive, word: Callable[[Event], Iterator[T]]
    ) -> AsyncGenerator[T | None, None]:
        """What ``word`` makes of each event, as they come; None is a heartbeat.

        Returns once the first event is there, so that an error before it is an ordinary answer.
        """
        await self._check()

        def produce(cancelled: Cancelled) -> Iterator[T]:
            answerer = self.running.bench(self.shelf).answerer
            for event in answerer.stream(self.query, self.options, cancelled):
                if isinstance(event, Done):
                    self._spend(event.answer)
                yield from word(event)

        patience = self.running.settings.server.heartbeat_seconds
        made = self.running.answering.stream(receive, produce, heartbeat_seconds=patience)
        return chained(await anext(made, None), made)

    async def _check(self) -> None:
        most = self.running.settings.server.max_answer_tokens
        if self.options.max_tokens is not None and self.options.max_tokens > most:
            raise LimitExceededError(
                f"max_tokens is {self.options.max_tokens}; at most {most} are taken.",
                remedy="Ask for less, or raise server.max_answer_tokens.",
            )
        await self.running.quotas.ask_tokens(self.shelf.tenant)

    def _spend(self, answer: Answer) -> None:
        self.running.telemetry.answered(self.shelf, self.running.settings.language_model.spec, answer)
        self.running.quotas.spend_tokens(
            self.shelf.tenant, sum(answer.usage.get(name, 0) for name in _COUNTED)
        )


async def chained(first: T | None, rest: AsyncGenerator[T | None, None]) -> AsyncGenerator[T | None, None]:
    """An item that was taken already, and the rest."""
    async with aclosing(rest):
        yield first
        async for item in rest:
            yield item

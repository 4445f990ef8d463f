"""Threads for model work: a fixed number, a bounded line in front, and a way to stop when nobody listens.

The event loop never runs a model. A request that finds the line full is refused before any of its
work starts; one whose client leaves is told through ``cancelled`` and keeps its place until it stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import Receive

from pipeline.errors import UnavailableError, WorkCancelledError

LAST_SECONDS = 2.0
"""How long work that was told to end has for it, once the service waits for nothing any more."""

Cancelled = Callable[[], bool]
Turn = Callable[[Cancelled], AbstractContextManager[None]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolState:
    """How many requests run and wait, how long the first of those has waited, how many were refused."""

    running: int
    waiting: int
    oldest_seconds: float
    refused: int


def stopping() -> UnavailableError:
    """What a client is told whose request the end of the service cuts short."""
    return UnavailableError(
        "The service is stopping and did not finish this.",
        remedy="Send it again once the service runs; it is not resumed by itself.",
    )


def _at_once(_: Cancelled) -> AbstractContextManager[None]:
    return nullcontext()


class Pool:
    """``workers`` threads and at most ``queue`` requests waiting for one. Work runs inside ``turn``, which
    may make it wait for work of another kind."""

    def __init__(self, name: str, *, workers: int, queue: int, turn: Turn = _at_once) -> None:
        self.name = name
        self._turn = turn
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(workers + queue)
        self._taken: set[Place] = set()
        self._stop = asyncio.Event()
        self._refused = 0

    def state(self) -> PoolState:
        """A look at the line; others go on meanwhile."""
        taken = self._taken.copy()
        waiting = [place.entered for place in taken if not place.running]
        oldest = time.monotonic() - min(waiting) if waiting else 0.0
        return PoolState(len(taken) - len(waiting), len(waiting), oldest, self._refused)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place in the line, for a request that has something to do before its work can start.

        Raises UnavailableError when the line is full. Given back once the work has really ended.
        """
        if not self._places.acquire(blocking=False):
            self._refused += 1
            raise UnavailableError(
                f"Too much {self.name} work is waiting already.", remedy="Try again in a moment."
            )
        place = Place(self._threads, self._turn, self._stop)
        self._taken.add(place)
        try:
            yield place
        finally:
            if place.job is None:
                self._give_back(place)
            else:
                place.job.add_done_callback(lambda _: self._give_back(place))

    async def run(self, receive: Receive, work: Callable[[Cancelled], T]) -> T:
        """:meth:`Place.run` in a place of its own."""
        with self.place() as place:
            return await place.run(receive, work)

    async def stream(
        self, receive: Receive, produce: Callable[[Cancelled], Iterator[T]], *, heartbeat_seconds: float
    ) -> AsyncGenerator[T | None, None]:
        """:meth:`Place.stream` in a place of its own."""
        with self.place() as place:
            async for item in place.stream(receive, produce, heartbeat_seconds=heartbeat_seconds):
                yield item

    def _give_back(self, place: Place) -> None:
        self._taken.discard(place)
        self._places.release()

    def stop(self) -> None:
        """Tell all work to end, and whoever waits for it that it will not be finished."""
        self._stop.set()

    def close(self) -> None:
        """Wait for running work; refuse what is still waiting."""
        self._threads.shutdown(wait=True, cancel_futures=True)


class Place:
    """The right to run one piece of work in a pool's threads, until ``stop`` is set."""

    def __init__(self, threads: ThreadPoolExecutor, turn: Turn, stop: asyncio.Event) -> None:
        self._threads = threads
        self._turn = turn
        self._stop = stop
        self.job: Future[Any] | None = None
        self.entered = time.monotonic()
        self.running = False

    def _submit(self, work: Callable[[], T], cancelled: Cancelled) -> Future[T]:
        """Start the work in a thread, with the context (of tracing) that it was asked in."""
        context = contextvars.copy_context()

        def begin() -> T:
            with self._turn(cancelled):
                self.running = True
                return context.run(work)

        job = self.job = self._threads.submit(begin)
        return job

    async def run(self, receive: Receive, work: Callable[[Cancelled], T]) -> T:
        """Run ``work`` in a thread. Raises WorkCancelledError when the client disconnected before it was
        done, which ``receive`` tells once the body has been read; UnavailableError when the service
        stopped before it was."""
        cancelled = threading.Event()
        job = self._submit(lambda: work(cancelled.is_set), cancelled.is_set)
        done = _outcome(job)
        gone = asyncio.ensure_future(disconnect(receive))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((done, gone, stop), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                cancelled.set()
                never_began = job.cancel()
                if stop.done():
                    await self._ended(done)
                elif never_began:
                    raise WorkCancelledError("The client left before the work began.")
            return await done
        finally:
            cancelled.set()
            gone.cancel()
            stop.cancel()

    @staticmethod
    async def _ended(done: asyncio.Future[Any]) -> None:
        """Return once work that was told to end did all of it nevertheless. Raises UnavailableError."""
        await asyncio.wait((done,), timeout=LAST_SECONDS)
        if not done.done() or done.cancelled() or isinstance(done.exception(), WorkCancelledError):
            raise stopping()

    async def stream(
        self, receive: Receive, produce: Callable[[Cancelled], Iterator[T]], *, heartbeat_seconds: float
    ) -> AsyncGenerator[T | None, None]:
        """Items as ``produce`` yields them in a thread; None after every ``heartbeat_seconds`` of
        silence. Ends early when the client disconnects. Raises what ``produce`` raises, and
        UnavailableError when the service stops."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[T] = asyncio.Queue()
        cancelled = threading.Event()

        def work() -> None:
            for item in produce(cancelled.is_set):
                loop.call_soon_threadsafe(items.put_nowait, item)

        job = self._submit(work, cancelled.is_set)
        done = _outcome(job)
        gone = asyncio.ensure_future(disconnect(receive))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            while not gone.done():
                if stop.done() and not done.done():
                    raise stopping()
                if not items.empty():
                    yield items.get_nowait()
                    continue
                if done.done():
                    await done
                    return
                arrival = asyncio.ensure_future(items.get())
                await asyncio.wait(
                    (arrival, done, gone, stop),
                    timeout=heartbeat_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if arrival.done():
                    yield arrival.result()
                    continue
                arrival.cancel()
                if not (done.done() or gone.done() or stop.done()):
                    yield None
        finally:
            cancelled.set()
            job.cancel()
            gone.cancel()
            stop.cancel()


def _outcome(job: Future[T]) -> asyncio.Future[T]:
    """The job's result for the event loop; an error nobody waits for any more is not logged as lost."""
    outcome = asyncio.wrap_future(job)
    outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
    return outcome


async def disconnect(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass

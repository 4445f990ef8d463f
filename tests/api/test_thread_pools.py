from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from api.work import Pool
from pipeline.errors import NotFoundError, UnavailableError, WorkCancelledError

Cancelled = object


class Client:
    """The receiving half of a connection whose client leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("test", workers=1, queue=1)
    yield pool
    pool.close()


def test_work_returns_and_raises(pool: Pool) -> None:
    async def main() -> None:
        client = Client()
        assert await pool.run(client.receive, lambda _: threading.current_thread().name) != "MainThread"
        with pytest.raises(NotFoundError):
            await pool.run(client.receive, lambda _: (_ for _ in ()).throw(NotFoundError("gone")))

    asyncio.run(main())


def test_a_full_line_refuses_before_work_starts_and_recovers(pool: Pool) -> None:
    async def main() -> None:
        client, release, started = Client(), threading.Event(), []

        def work(_: object) -> bool:
            started.append(1)
            return release.wait(20)

        waiting = [asyncio.create_task(pool.run(client.receive, work)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(UnavailableError):
            await pool.run(client.receive, work)
        release.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert len(started) == 2
        assert await pool.run(client.receive, work)

    asyncio.run(main())


def test_a_client_that_leaves_stops_the_work_and_frees_the_place(pool: Pool) -> None:
    async def main() -> None:
        client = Client()

        def work(cancelled: object) -> None:
            while not cancelled():  # type: ignore[operator]
                time.sleep(0.005)
            raise WorkCancelledError("stopped")

        task = asyncio.create_task(pool.run(client.receive, work))
        await asyncio.sleep(0.05)
        client.left.set()
        with pytest.raises(WorkCancelledError):
            await task
        assert await pool.run(Client().receive, lambda _: 1) == 1

    asyncio.run(main())


def test_a_waiting_client_that_leaves_never_runs(pool: Pool) -> None:
    async def main() -> None:
        release, ran = threading.Event(), []
        first = asyncio.create_task(pool.run(Client().receive, lambda _: release.wait(20)))
        await asyncio.sleep(0.05)
        leaving = Client()
        second = asyncio.create_task(pool.run(leaving.receive, lambda _: ran.append(1)))
        await asyncio.sleep(0.05)
        leaving.left.set()
        with pytest.raises(WorkCancelledError):
            await second
        release.set()
        assert await first
        assert not ran

    asyncio.run(main())


def test_a_stream_gives_items_in_order_then_what_was_raised(pool: Pool) -> None:
    async def main() -> None:
        def produce(_: object) -> Iterator[int]:
            yield from range(1000)
            raise NotFoundError("gone")

        got: list[int | None] = []
        with pytest.raises(NotFoundError):
            async for item in pool.stream(Client().receive, produce, heartbeat_seconds=5):
                got += [item]
        assert got == list(range(1000))

    asyncio.run(main())


def test_a_silent_stream_beats_and_ends_when_the_client_leaves(pool: Pool) -> None:
    async def main() -> None:
        client, stopped = Client(), threading.Event()

        def produce(cancelled: object) -> Iterator[int]:
            yield 1
            while not cancelled():  # type: ignore[operator]
                time.sleep(0.005)
            stopped.set()

        got = []
        async for item in pool.stream(client.receive, produce, heartbeat_seconds=0.02):
            got.append(item)
            if len(got) == 3:
                client.left.set()
        assert got[:3] == [1, None, None]
        assert await asyncio.to_thread(stopped.wait, 5)

    asyncio.run(main())


def test_a_stream_whose_work_is_done_is_read_to_its_end_when_the_service_stops(pool: Pool) -> None:
    async def main() -> None:
        client = Client()
        stream = pool.stream(client.receive, lambda _: iter(range(3)), heartbeat_seconds=20)
        async with aclosing(stream):
            assert await anext(stream) == 0
            await asyncio.to_thread(pool.close)
            pool.stop()
            await asyncio.sleep(0.01)
            assert [item async for item in stream] == [1, 2]

    asyncio.run(main())

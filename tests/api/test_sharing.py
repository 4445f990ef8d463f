"""Searches leave answers their share of the processors, and give it back at once."""

from __future__ import annotations

import asyncio
import threading

import pytest
from test_thread_pools import Client

from api.sections import LanguageModelSettings, ServerSettings, Settings
from api.service import _searches_beside
from api.sharing import Share
from api.work import Pool
from pipeline.errors import WorkCancelledError

PATIENCE_SECONDS = 30


class Watched:
    """Work that says how many of its kind run, and ends when told to."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.end = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, _: object) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.end.wait(PATIENCE_SECONDS)
        with self._lock:
            self.running -= 1


async def until(true: object) -> None:
    for _ in range(PATIENCE_SECONDS * 100):
        if true():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to pass")


async def test_fewer_searches_run_beside_an_answer() -> None:
    share = Share(lambda: 1)
    searching = Pool("search", workers=3, queue=9, turn=share.follow)
    answering = Pool("answer", workers=1, queue=9, turn=share.lead)
    client, answer, search = Client(), Watched(), Watched()
    try:
        answered = asyncio.create_task(answering.run(client.receive, answer))
        await until(lambda: answer.running)
        searches = [asyncio.create_task(searching.run(client.receive, search)) for _ in range(6)]
        await until(lambda: search.running)
        await asyncio.sleep(0.3)
        assert search.most == 1
        assert (searching.state().running, searching.state().waiting) == (1, 5)
        answer.end.set()
        await answered
        await until(lambda: search.running == 3)
        search.end.set()
        await asyncio.gather(*searches)
        assert search.most == 3
    finally:
        answer.end.set()
        search.end.set()
        searching.close()
        answering.close()


async def test_an_answer_waits_for_no_search_and_searches_go_on_beside_it() -> None:
    share = Share(lambda: 0)  # one may always go on
    searching = Pool("search", workers=2, queue=9, turn=share.follow)
    answering = Pool("answer", workers=1, queue=9, turn=share.lead)
    client, answer, search = Client(), Watched(), Watched()
    try:
        busy = [asyncio.create_task(searching.run(client.receive, search)) for _ in range(2)]
        await until(lambda: search.running == 2)
        answered = asyncio.create_task(answering.run(client.receive, answer))
        await until(lambda: answer.running)
        search.end.set()
        await asyncio.gather(*busy)
        for _ in range(3):
            await searching.run(client.receive, search)
        answer.end.set()
        await answered
    finally:
        answer.end.set()
        search.end.set()
        searching.close()
        answering.close()


async def test_a_client_that_leaves_while_it_waits_frees_its_place() -> None:
    share = Share(lambda: 1)
    searching = Pool("search", workers=2, queue=0, turn=share.follow)
    answering = Pool("answer", workers=1, queue=0, turn=share.lead)
    client, leaving, answer, search = Client(), Client(), Watched(), Watched()
    try:
        answered = asyncio.create_task(answering.run(client.receive, answer))
        await until(lambda: answer.running)
        first = asyncio.create_task(searching.run(client.receive, search))
        await until(lambda: search.running)
        second = asyncio.create_task(searching.run(leaving.receive, search))
        await until(lambda: searching.state().waiting == 1)
        leaving.left.set()
        with pytest.raises(WorkCancelledError):
            await second
        await until(lambda: searching.state().waiting == 0)
        assert search.most == 1
        search.end.set()
        answer.end.set()
        await asyncio.gather(first, answered)
    finally:
        answer.end.set()
        search.end.set()
        searching.close()
        answering.close()


@pytest.mark.parametrize(
    ("model", "server", "beside"),
    [
        ({"spec": "none"}, {"search_workers": 8}, 8),
        ({"url": "http://127.0.0.1:1/v1"}, {"search_workers": 8}, 8),
        ({"device": "cuda:1"}, {"search_workers": 8}, 8),
        ({"device": "cpu"}, {"search_workers": 8}, 4),
        ({"device": "cpu"}, {"search_workers": 8, "searches_beside_answers": 7}, 7),
    ],
)
def test_searches_are_held_back_where_the_model_shares_their_processors(
    model: dict[str, str], server: dict[str, int], beside: int
) -> None:
    settings = Settings(language_model=LanguageModelSettings(**model), server=ServerSettings(**server))  # type: ignore[arg-type]
    assert _searches_beside(settings) == beside

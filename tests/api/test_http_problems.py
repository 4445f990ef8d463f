"""Everything that can go wrong before a route is reached, and what no answer may repeat."""

from __future__ import annotations

import gzip
import json
import re
import time

import pytest
from small_library import client_of
from starlette.testclient import TestClient

from api.sections import Settings
from pipeline.errors import IndexDamagedError

CANARY = "canary-7f3a"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"query": "canary-7f3a", "top_k": NaN}',
        b'{"query": "canary-7f3a", "top_k": 1e999}',
        b'{"query": "canary-7f3a", "top_k": -Infinity}',
        b'{"query": "canary-7f3a \\ud800"}',
        b'{"query": "canary-7f3a", "filter": ' + b'{"not":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"query": "canary-7f3a", "top_k": ' + b"9" * 5000 + b"}",
        b'{"query": "canary-7f3a"',
        b'{"canary-7f3a": 1}',
        b'{"query": {"canary-7f3a": ["canary-7f3a"]}}',
        b'{"query": "a", "mode": "canary-7f3a"}',
        b'"canary-7f3a"',
        b"canary-7f3a",
        b"\xff\xfecanary-7f3a",
        b"",
    ],
    ids=lambda body: repr(body[:45]),
)
@pytest.mark.parametrize("route", ["search", "answer", "documents"])
def test_hostile_json_is_refused_without_an_echo(shelf: TestClient, route: str, body: bytes) -> None:
    response = shelf.post(f"/v1/collections/books/{route}", content=body, headers=JSON)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 2000
    problem = response.json()
    assert problem["code"] == "invalid_request"
    if b'{"canary' not in body:  # a name of a field is told, a value never
        assert CANARY not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/collections/books/search", 405),
        ("PUT", "/v1/collections", 405),
        ("GET", "/v1/collections/books/documents?limit=0", 422),
        ("GET", "/v1/collections/books/documents?limit=abc", 422),
        ("GET", "/v1/collections/books/documents/%FF%FE", 404),
        ("GET", "/v1/collections/%2e%2e/documents", 422),
        ("GET", "/v1/collections/" + "x" * 5000 + "/documents", 422),
    ],
)
def test_every_refusal_is_a_problem_document(shelf: TestClient, method: str, path: str, status: int) -> None:
    response = shelf.request(method, path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "code", "remedy"} <= set(problem)
    if status == 405:
        assert response.headers["allow"]


def test_a_defect_is_told_as_an_incident_and_no_more(
    library: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    longleaf = library.app.state.service.longleaf  # type: ignore[attr-defined]

    class Broken:
        def search(self, query: object) -> None:
            raise ZeroDivisionError(CANARY)

    longleaf.made["retriever"] = Broken()
    response = library.post("/v1/collections/books/search", json={"query": CANARY})
    assert response.status_code == 500
    problem = response.json()
    assert (problem["code"], problem["status"]) == ("internal", 500)
    assert CANARY not in response.text
    assert problem["incident"] in caplog.text
    assert CANARY not in caplog.text


def test_health_needs_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    # In single-user mode whoever is at the machine is told everything.
    assert client.get("/readyz").json() == {"status": "ok", "parts": {"ledger": "ok", "indexer": "ok"}}
    running = client.app.state.service  # type: ignore[attr-defined]
    running.models["language_model"] = "it is missing"
    assert client.get("/readyz").status_code == 200
    running.models["embedder"] = "loading"
    assert client.get("/readyz").status_code == 503
    running.models["embedder"] = "ok"

    def gone() -> None:
        raise IndexDamagedError("The index is damaged.", remedy="Repair it.")

    monkeypatch.setattr(running.longleaf.indexer, "names", gone)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["parts"]["indexer"] == "The index is damaged. Repair it."


def test_models_are_loaded_at_start(settings: Settings) -> None:
    server = settings.server.model_copy(update={"preload": True})
    with client_of(settings.model_copy(update={"server": server})) as client:
        deadline = time.monotonic() + 20
        while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.get("/readyz").json()["parts"]["embedder"] == "ok"


def test_a_key_is_needed_once_one_exists(library: TestClient, settings: object) -> None:
    from api.keys import KeyRing

    ring = KeyRing(settings.data)  # type: ignore[attr-defined]
    key = ring.create("test")
    for path in ("/v1/collections", "/openapi.json", "/v1/collections/books/documents/lease"):
        assert library.get(path).status_code == 401
        assert library.get(path, headers={"authorization": f"Bearer {key}"}).status_code == 200
    assert library.get("/livez").status_code == 200
    ring.revoke(key.split(".")[0])
    assert library.get("/v1/collections", headers={"authorization": f"Bearer {key}"}).status_code == 401


def test_problem_documents_survive_any_text() -> None:
    from api.problems import ProblemResponse

    body = json.loads(ProblemResponse(422, "x", "\ud800 \u2028 é" + "y" * 10_000).body)
    assert body["detail"].startswith("\ud800")
    assert len(body["detail"]) == 600


@pytest.mark.parametrize("route", ["search", "answer", "documents"])
@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "image/json", None]
)
def test_what_is_not_json_is_said_so(shelf: TestClient, route: str, media_type: str | None) -> None:
    headers = {"content-type": media_type} if media_type else {}
    response = shelf.post(f"/v1/collections/books/{route}", content=b'{"query": "lease"}', headers=headers)
    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize("route", ["collections/books/search", "collections/books/documents", "rerank"])
def test_a_compressed_body_is_said_to_be_one(shelf: TestClient, route: str) -> None:
    body, headers = gzip.compress(b'{"query": "lease"}'), {**JSON, "content-encoding": "gzip"}
    response = shelf.post(f"/v1/{route}", content=body, headers=headers)
    assert response.status_code == 415
    assert "Content-Encoding is 'gzip'" in response.text
    plain = {**JSON, "content-encoding": "identity"}
    assert shelf.post(f"/v1/{route}", content=b"{", headers=plain).status_code in (400, 422)


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/v1/collections/books/documents?on-conflict=fail", "query:on-conflict: .*'on_conflict'"),
        ("GET", "/v1/collections/books/documents?limit=1&Limit=1", "query:Limit: .*'limit'"),
        ("GET", "/v1/collections/books/documents/lease/text?colour=red", "query:colour: .*: end, start"),
        ("GET", "/v1/jobs?status=done", "query:status: .*'state'"),
        ("GET", "/v1/collections?limit=1", "query:limit: No parameter"),
        ("GET", "/v1/models?limit=1", "query:limit: No parameter"),
    ],
)
def test_a_parameter_that_no_route_knows_is_refused(
    library: TestClient, method: str, path: str, said: str
) -> None:
    send = {"json": {"documents": [{"id": "lease", "text": "Another."}]}} if method == "POST" else {}
    response = library.request(method, path, **send)
    assert response.status_code == (400 if "models" in path else 422)
    assert re.search(said, response.text)
    assert library.get("/v1/collections/books/documents/lease").json()["version"] == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json"])
def test_what_machines_ask_takes_any_parameter(shelf: TestClient, path: str) -> None:
    assert shelf.get(path, params={"format": "prometheus"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([1], "#"),
        ({"query": "a", "a/b~c": 1}, "#/a~1b~0c"),
        ({"query": "a", "50 % é": 1}, "#/50%20%25%20%C3%A9"),
        ({"query": "a", "top_k": 0}, "#/top_k"),
    ],
)
def test_pointers_are_those_of_rfc_6901(shelf: TestClient, body: object, pointer: str) -> None:
    [fault] = shelf.post("/v1/collections/books/search", json=body).json()["errors"]
    assert fault["pointer"] == pointer


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": 3}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0.content"),
        ([{"content": "a"}], "messages.0.role"),
        ([3], "messages.0"),
    ],
)
def test_pointers_name_nothing_that_is_not_in_the_body(
    shelf: TestClient, messages: list[object], param: str
) -> None:
    refused = shelf.post("/v1/chat/completions", json={"model": "books", "messages": messages})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_field_that_is_missing_is_pointed_at(shelf: TestClient) -> None:
    refused = shelf.post("/v1/collections/books/documents", json={"documents": [{"text": "a"}, {"text": 1}]})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["#/documents/1/text"]
    missing = shelf.post("/v1/collections/books/search", json={"top_k": 1})
    assert [fault["pointer"] for fault in missing.json()["errors"]] == ["#/query"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/collections", "GET, POST"),
        ("/v1/collections/books", "DELETE, GET"),
        ("/v1/collections/books/documents", "GET, POST"),
        ("/v1/collections/books/documents/a/text", "DELETE, GET"),
        ("/v1/rerank", "POST"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_every_right_one(shelf: TestClient, path: str, methods: str) -> None:
    response = shelf.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, methods)


@pytest.mark.parametrize(
    "body",
    [{"query": "lease", "top_k": "3"}, {"query": "lease", "top_k": True}, {"query": "lease", "top_k": 3.5}],
)
def test_types_are_not_guessed(shelf: TestClient, body: dict) -> None:
    response = shelf.post("/v1/collections/books/search", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "#/top_k"


def test_strangers_are_told_that_a_part_failed_and_not_why(client: TestClient, settings: Settings) -> None:
    from api.keys import KeyRing

    key = KeyRing(settings.data).create("operator", access="operate")
    running = client.app.state.service  # type: ignore[attr-defined]
    running.models["embedder"] = "The model in /srv/secret-place cannot be loaded."
    stranger = client.get("/readyz")
    assert (stranger.status_code, stranger.json()["parts"]["embedder"]) == (503, "failed")
    assert "secret-place" not in stranger.text
    known = client.get("/readyz", headers={"authorization": f"Bearer {key}"})
    assert "secret-place" in known.json()["parts"]["embedder"]


@pytest.mark.parametrize(
    ("body", "param"),
    [([1], None), ({"model": "books", "input": "a", "encoding_format": "a/b"}, "encoding_format")],
)
def test_clients_of_openai_are_told_the_parameter(shelf: TestClient, body: object, param: str | None) -> None:
    response = shelf.post("/v1/embeddings", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)

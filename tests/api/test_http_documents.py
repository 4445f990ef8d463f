from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from small_library import DOCUMENTS, LEASE
from starlette.testclient import TestClient

from api import fetching, uploads
from api.sections import FetchSettings
from pipeline.errors import DiskFullError
from pipeline.ingest import Ingestor, IngestResult

BOOKS = "/v1/collections/books/documents"


def test_texts_are_stored_listed_shown_and_deleted(library: TestClient) -> None:
    page = library.get(BOOKS).json()
    assert [document["id"] for document in page["documents"]] == ["frost", "lease", "whale"]
    assert page["next"] is None
    lease = library.get(f"{BOOKS}/lease").json()
    assert (lease["title"], lease["version"], lease["chars"]) == ("Lease of the mill", 1, len(LEASE))
    assert library.delete(f"{BOOKS}/lease").status_code == 204
    assert library.get(f"{BOOKS}/lease").status_code == 404
    assert library.delete(f"{BOOKS}/lease").status_code == 404
    [collection] = library.get("/v1/collections").json()["collections"]
    assert (collection["name"], collection["documents"]) == ("books", 2)


def test_pages_follow_the_cursor(library: TestClient) -> None:
    seen, cursor = [], None
    while True:
        page = library.get(BOOKS, params={"limit": 2, **({"after": cursor} if cursor else {})}).json()
        seen += [document["id"] for document in page["documents"]]
        if (cursor := page["next"]) is None:
            break
    assert seen == ["frost", "lease", "whale"]
    whole = library.get(BOOKS, params={"limit": 3}).json()
    assert ([document["id"] for document in whole["documents"]], whole["next"]) == (seen, None)
    assert library.get(BOOKS, params={"limit": 1000}).json() == whole


def test_the_same_again_changes_nothing_and_a_change_replaces(library: TestClient) -> None:
    again = library.post(BOOKS, json={"documents": DOCUMENTS}).json()["documents"]
    assert [result["status"] for result in again] == ["unchanged"] * 3
    changed = [{**DOCUMENTS[0], "text": LEASE + " The lease was signed in Exeter."}]
    [result] = library.post(BOOKS, json={"documents": changed}).json()["documents"]
    assert (result["status"], result["version"]) == ("replaced", 2)


def test_files_come_as_a_form(client: TestClient) -> None:
    files = [
        ("files", ("deeds/mill.txt", LEASE.encode(), "text/plain")),
        ("file", ("frost.md", b"# Frost\n\nLate frost harms blossoms.", "application/octet-stream")),
    ]
    response = client.post(BOOKS, files=files, data={"metadata": json.dumps({"year": 1869})})
    assert response.status_code == 200, response.text
    assert [r["document_id"] for r in response.json()["documents"]] == ["deeds/mill.txt", "frost.md"]
    record = client.get(f"{BOOKS}/deeds/mill.txt").json()
    assert record["metadata"]["year"] == 1869


def test_one_bad_file_does_not_stop_the_others(client: TestClient) -> None:
    files = [
        ("files", ("good.txt", LEASE.encode())),
        ("files", ("empty.txt", b"")),
        ("files", ("rubbish.pdf", bytes(range(256)) * 8)),
    ]
    response = client.post(BOOKS, files=files)
    assert response.status_code == 207
    good, empty, rubbish = response.json()["documents"]
    assert good["status"] == "created"
    assert (empty["status"], empty["code"]) == ("failed", "empty_document")
    assert (rubbish["status"], rubbish["code"]) == ("failed", "damaged_file")
    assert empty["remedy"] and rubbish["remedy"]
    assert [d["id"] for d in client.get(BOOKS).json()["documents"]] == ["good.txt"]


def test_when_all_fail_the_answer_is_a_problem_with_every_result(client: TestClient) -> None:
    response = client.post(BOOKS, files=[("files", ("empty.txt", b"")), ("files", ("none.txt", b""))])
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "empty_document"
    assert [result["status"] for result in problem["documents"]] == ["failed", "failed"]
    assert client.get("/v1/collections").json() == {"collections": []}


def test_what_stops_an_upload_is_told_with_what_was_done(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Ingestor.ingest

    def fills_the_disk(*parts: object, **options: object) -> Iterator[IngestResult]:
        yield next(ingest(*parts, **options))  # type: ignore[arg-type]
        raise DiskFullError("No space is left.", remedy="Free some.")

    monkeypatch.setattr(Ingestor, "ingest", fills_the_disk)
    response = client.post(BOOKS, json={"documents": DOCUMENTS})
    assert response.status_code == 507
    problem = response.json()
    assert problem["code"] == "disk_full"
    assert [result["status"] for result in problem["documents"]] == ["created"]


@pytest.mark.parametrize("name", ["../../victim", "foo/../bar", "./a"])
def test_no_document_gets_an_id_that_clients_shorten(client: TestClient, name: str) -> None:
    refused = client.post(BOOKS, json={"documents": [{"id": name, "text": LEASE}]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "without the parts" in refused.json()["remedy"]
    [made] = client.post(BOOKS, files=[("files", (f"{name}.txt", b"a word"))]).json()["documents"]
    assert ".." not in made["document_id"].split("/")
    assert client.delete(f"{BOOKS}/{made['document_id']}").status_code == 204


def test_an_older_document_with_such_an_id_can_be_listed_and_deleted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("pipeline.sources._DOTS", re.compile("(?!)"))
        texts = [{"id": name, "text": LEASE} for name in ("..", "../../victim", "foo/../bar")]
        client.post(BOOKS, json={"documents": texts}).raise_for_status()
    assert [d["id"] for d in client.get(BOOKS).json()["documents"]] == ["..", "../../victim", "foo/../bar"]
    assert client.get(f"{BOOKS}/foo%2F..%2Fbar").status_code == 200
    assert client.delete(f"{BOOKS}/foo%2F..%2Fbar").status_code == 204
    for name in ("..", "../../victim"):  # as `longleaf documents delete` does
        client.app.state.service.longleaf.ingestor.delete("default", "books", name)  # type: ignore[attr-defined]
    assert client.get(BOOKS).json()["documents"] == []


CAFE = ("caf\u00e9.txt", "cafe\u0301.txt")


@pytest.mark.parametrize(
    "send",
    [
        {"json": {"documents": [{"text": "One text.", "title": "A"}, {"text": "One text.", "title": "B"}]}},
        {"json": {"documents": [{"text": "One text.", "metadata": {"n": n}} for n in (1, True)]}},
        {"json": {"documents": [{"text": f"Text {i}.", "id": name} for i, name in enumerate(CAFE)]}},
        {"files": [("files", (name, name.encode())) for name in CAFE]},
    ],
    ids=["texts", "metadata", "ids", "names"],
)
@pytest.mark.parametrize("wait", [True, False])
def test_no_document_of_an_upload_replaces_another(client: TestClient, send: dict, wait: bool) -> None:
    response = client.post(BOOKS, params={"wait": wait}, **send)
    assert response.status_code == 422, response.text
    assert "both have the id" in response.json()["detail"]
    assert "an id of its own" in response.json()["remedy"]
    assert client.get("/v1/collections").json() == {"collections": []}


def test_the_same_text_twice_is_one_document_and_a_bad_id_fails_by_itself(client: TestClient) -> None:
    same = {"text": "One text.", "title": "A", "metadata": {"year": 1869}}
    results = client.post(BOOKS, json={"documents": [same, same, {**same, "id": " bad"}]}).json()["documents"]
    assert [result["status"] for result in results] == ["created", "unchanged", "failed"]


def test_long_addresses_are_told_apart(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, _: FetchSettings) -> fetching.Fetched:
        return fetching.Fetched("page.txt", f"What is at {url}.".encode(), "text/plain")

    monkeypatch.setattr(uploads, "fetch", fetch)
    settings = client.app.state.service.longleaf.settings  # type: ignore[attr-defined]
    on = settings.model_copy(update={"fetching": FetchSettings(enabled=True)})
    monkeypatch.setattr(client.app.state.service.longleaf, "settings", on)  # type: ignore[attr-defined]
    urls = [f"https://example.com/{'x' * 300}/{i}" for i in range(2)] + ["https://example.com/a/../b"]
    results = client.post(BOOKS, json={"documents": [{"url": url} for url in urls]}).json()["documents"]
    assert [result["status"] for result in results] == ["created"] * 3
    assert len({result["document_id"] for result in results}) == 3
    again = client.post(BOOKS, json={"documents": [{"url": urls[0]}, {"url": urls[0]}]})
    assert "both have the id" in again.json()["detail"]


@pytest.mark.parametrize(
    ("form", "limit"),
    [
        ({"files": [("files", (f"{i}.txt", b"a")) for i in range(101)]}, "at most 100"),
        ({"data": {"title": "x" * 1_100_000}}, "over 1048576 bytes"),
        ({"data": {f"field{i}": "x" for i in range(9)}}, "over 4 fields"),
    ],
    ids=["files", "long field", "fields"],
)
def test_limits_of_a_form_are_told_as_those_of_json(client: TestClient, form: dict, limit: str) -> None:
    response = client.post(BOOKS, **{"files": [("files", ("a.txt", b"a"))], **form})
    assert (response.status_code, response.json()["code"]) == (413, "limit_exceeded")
    assert limit in response.json()["detail"]
    assert response.json()["remedy"]


def test_it_is_said_what_of_an_upload_is_wrong(client: TestClient) -> None:
    form = {"files": [("files", ("a.txt", b"a"))], "data": {"metadata": "{bad"}}
    assert (
        client.post(BOOKS, **form).json()["detail"].startswith("The field `metadata` cannot be taken as JSON")
    )
    texts = [{"text": "a"}, {"text": "b", "id": "second", "metadata": {"_x": 1}}]
    problem = client.post(BOOKS, params={"wait": False}, json={"documents": texts}).json()
    assert problem["detail"].startswith("Document 1 ('second'): Metadata key '_x'")
    assert "rename" in problem["remedy"]
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_who_asks_for_what_is_not_there_is_told_the_route_that_lists(shelf: TestClient) -> None:
    assert "GET /v1/collections/books/documents" in shelf.get(f"{BOOKS}/nothing").json()["remedy"]
    assert "GET /v1/jobs" in shelf.get("/v1/jobs/nothing").json()["remedy"]


def test_a_dropped_collection_is_gone(library: TestClient) -> None:
    assert library.delete("/v1/collections/books").status_code == 204
    assert library.get(BOOKS).status_code == 404
    assert library.delete("/v1/collections/books").status_code == 404


@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"json": {"documents": []}}, 422),
        ({"json": {"documents": [{"id": "x"}]}}, 422),
        ({"json": {"documents": [{"text": 5}]}}, 422),
        ({"json": {"documents": [{"text": "a", "colour": "red"}]}}, 422),
        ({"json": {"documents": [{"text": "a"}] * 101}}, 413),
        ({"json": {"documents": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}}, 422),
        ({"files": [("files", ("a.txt", b"a")), ("files", ("a.txt", b"b"))]}, 422),
        ({"content": b"hello", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422),
        ({"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"no form", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"files": [("picture", ("a.txt", b"a"))]}, 422),
        ({"files": [("files", ("a.txt", b"a"))], "data": {"metadata": "[]"}}, 422),
        ({"files": [("files", (f"{i}.txt", b"a")) for i in range(2)], "data": {"id": "one"}}, 422),
    ],
    ids=str,
)
def test_what_is_no_upload_is_refused(client: TestClient, send: dict, status: int) -> None:
    response = client.post(BOOKS, **send)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/collections").json() == {"collections": []}


@pytest.mark.parametrize("name", ["a b", "..", "%00", "x" * 65, "é"])
def test_names_of_collections_are_checked(client: TestClient, name: str) -> None:
    response = client.post(f"/v1/collections/{name}/documents", json={"documents": DOCUMENTS})
    assert response.status_code in (404, 422)
    assert response.json()["code"] in ("invalid_request", "not_found")


def test_a_field_of_a_form_that_comes_twice_is_refused(client: TestClient) -> None:
    twice = [("files", ("a.txt", b"The tenant pays.")), ("id", (None, b"a")), ("id", (None, b"b"))]
    response = client.post(BOOKS, files=twice)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert "'id' twice" in response.json()["detail"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 200), ("Application/LD+JSON; charset=utf-8", 200), ("text/x+json", 415)],
)
def test_what_counts_as_json_is_the_same_for_uploads_and_questions(
    client: TestClient, content_type: str, status: int
) -> None:
    headers = {"content-type": content_type}
    texts = json.dumps({"documents": [{"id": "a", "text": "The tenant pays."}]})
    asked = json.dumps({"query": "Who pays?"})
    client.post("/v1/collections", json={"name": "books"}).raise_for_status()
    assert client.post(BOOKS, content=texts, headers=headers).status_code == status
    path = "/v1/collections/books/search"
    assert client.post(path, content=asked, headers=headers).status_code == status

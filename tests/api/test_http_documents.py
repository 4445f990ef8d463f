from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from small_library import DOCUMENTS, LEASE
from starlette.testclient import TestClient

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

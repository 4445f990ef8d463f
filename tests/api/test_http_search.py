from __future__ import annotations

import pytest
from pdf_writer import Line, pdf
from small_files import docx, paragraph
from small_library import DOCUMENTS, LEASE, client_of, fill
from starlette.testclient import TestClient

from api.sections import PluginChoice, Settings

SEARCH = "/v1/collections/books/search"


def test_hits_say_where_they_are(shelf: TestClient) -> None:
    found = shelf.post(SEARCH, json={"query": "end the lease with notice", "top_k": 2}).json()
    assert set(found) >= {"hits", "timings", "degraded"}
    hit = found["hits"][0]
    assert set(hit) >= {
        *(
            "chunk_id",
            "document_id",
            "title",
            "text",
            "start",
            "end",
            "page_start",
            "page_end",
            "score",
            "scores",
        )
    }
    assert hit["document_id"] == "lease"
    assert LEASE[hit["start"] : hit["end"]] == hit["text"]
    assert len(found["hits"]) <= 2
    assert all(isinstance(seconds, float) for seconds in found["timings"].values())


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        ({"document_id": "whale"}, {"whale"}),
        ({"filter": {"kind": "report"}}, {"frost"}),
        ({"filter": {"year": {"lt": 1900}}}, {"lease", "whale"}),
        ({"filter": {"not": {"kind": {"any_of": ["novel", "contract"]}}}}, {"frost"}),
    ],
    ids=str,
)
def test_bounds_are_kept(shelf: TestClient, bounds: dict, allowed: set[str]) -> None:
    hits = shelf.post(SEARCH, json={"query": "the owner of the wheel", **bounds}).json()["hits"]
    assert hits
    assert {hit["document_id"] for hit in hits} <= allowed


def test_the_budget_counts_tokens_of_all_hits(shelf: TestClient) -> None:
    everything = shelf.post(SEARCH, json={"query": "the"}).json()["hits"]
    budget = everything[0]["tokens"]
    hits = shelf.post(SEARCH, json={"query": "the", "budget_tokens": budget}).json()["hits"]
    assert sum(hit["tokens"] for hit in hits) <= budget
    assert len(hits) < len(everything)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"query": ""}, 422, "invalid_request"),
        ({"query": " \n\t"}, 422, "invalid_request"),
        ({"query": "x" * 100_000}, 413, "limit_exceeded"),
        ({"query": "a", "top_k": 0}, 422, "invalid_request"),
        ({"query": "a", "top_k": 1001}, 422, "invalid_request"),
        ({"query": "a", "top_k": "many"}, 422, "invalid_request"),
        ({"query": "a", "budget_tokens": 0}, 422, "invalid_request"),
        ({"query": "a", "filter": {"colour": "red"}}, 422, "filter"),
        ({"query": "a", "filter": {"year": {"over": 1}}}, 422, "filter"),
        ({"query": "a", "filter": {"year": "late"}}, 422, "filter"),
        ({"query": "a", "filter": []}, 422, "invalid_request"),
        ({"query": "a", "depth": 1}, 422, "invalid_request"),
        ({"query": 5}, 422, "invalid_request"),
        ({}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
        (None, 415, "unsupported_media_type"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_request_is_told_with_its_remedy(
    shelf: TestClient, body: object, status: int, code: str
) -> None:
    for route in ("search", "answer"):
        response = shelf.post(f"/v1/collections/books/{route}", json=body)
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["code"] == code
        assert problem["status"] == status
        assert problem["remedy"]
        assert len(response.content) < 2000


def test_an_unknown_collection_or_document_is_not_found(shelf: TestClient) -> None:
    for path, body in (
        ("/v1/collections/none/search", {"query": "a"}),
        ("/v1/collections/none/answer", {"query": "a"}),
        ("/v1/collections/books/search", {"query": "a", "document_id": "none"}),
    ):
        response = shelf.post(path, json=body)
        assert response.status_code == 404, response.text
        assert "none" in response.json()["detail"]


def test_a_collection_of_another_embedder_is_refused(settings: Settings) -> None:
    with client_of(settings) as client:
        fill(client)
    other = PluginChoice(name="hashing", dim=64)
    with client_of(settings.model_copy(update={"embedder": other})) as client:
        for path, body in (
            ("/v1/collections/books/search", {"query": "a"}),
            ("/v1/collections/books/documents", {"documents": DOCUMENTS}),
        ):
            response = client.post(path, json=body)
            assert response.status_code == 409, response.text
            assert response.json()["code"] == "fingerprint_mismatch"
            assert response.json()["remedy"]


def test_a_range_of_dates_finds_pdf_and_word_alike(client: TestClient) -> None:
    when = "<created>2019-06-05T17:12:58Z</created>"
    files = [
        (
            "files",
            ("deed.pdf", pdf([[Line(72, 72, "The deed of the mill.")]], created="D:20190605131258-04'00'")),
        ),
        ("files", ("deed.docx", docx(paragraph("The deed of the barn."), core=when))),
    ]
    client.post("/v1/collections/books/documents", files=files).raise_for_status()
    asked = {"query": "deed", "filter": {"created": {"gte": "2019-06-05", "lte": "2019-06-05"}}}
    found = client.post("/v1/collections/books/search", json=asked)
    assert found.status_code == 200, found.text
    assert {hit["document_id"] for hit in found.json()["hits"]} == {"deed.pdf", "deed.docx"}
    assert client.get("/v1/collections/books").json()["metadata_fields"]["created"] == "date"

"""Texts, chunks and originals of documents, and collections with settings of their own."""

from __future__ import annotations

import pytest
from small_library import LEASE, WHALE
from starlette.testclient import TestClient

from api.sections import Settings
from pipeline.ledger import Ledger
from pipeline.originals import Originals

BOOKS = "/v1/collections/books/documents"
LONG = "\n\n".join(
    f"Section {i}. The miller of place {i} keeps the sluice in repair. 🐋 é" for i in range(300)
)


def test_a_text_is_read_whole_and_in_part(shelf: TestClient) -> None:
    whole = shelf.get(f"{BOOKS}/lease/text")
    assert whole.text == LEASE
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["x-document-version"] == "1"
    part = shelf.get(f"{BOOKS}/lease/text", params={"start": 4, "end": 10})
    assert part.text == LEASE[4:10]
    assert shelf.get(f"{BOOKS}/lease/text", params={"start": 9, "end": 3}).status_code == 422
    assert shelf.get(f"{BOOKS}/nothing/text").status_code == 404


@pytest.mark.parametrize("kind", ["passages", "units"])
def test_chunks_come_in_pages_and_say_the_text(library: TestClient, kind: str) -> None:
    library.post(BOOKS, json={"documents": [{"id": "a/b", "text": LONG}]}).raise_for_status()
    record = library.get(f"{BOOKS}/a/b").json()
    seen, cursor = [], None
    while True:
        wanted = {"kind": kind, "limit": 7, **({} if cursor is None else {"after": cursor})}
        page = library.get(f"{BOOKS}/a/b/chunks", params=wanted).json()
        seen += page["chunks"]
        if (cursor := page["next"]) is None:
            break
    assert len(seen) == record[kind] > 7
    assert [chunk["ordinal"] for chunk in seen] == list(range(len(seen)))
    text = library.get(f"{BOOKS}/a/b/text").text
    assert all(text[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in seen)
    assert library.get(f"{BOOKS}/a/b/chunks", params={"kind": kind, "after": 10**6}).json()["chunks"] == []


def test_an_original_comes_back_byte_for_byte_as_an_attachment(client: TestClient) -> None:
    page = b"<html><body><script>alert(1)</script><p>The tenant pays forty pounds.</p></body></html>"
    client.post(BOOKS, files=[("files", ("deeds/ev\u00efl.html", page, "text/html"))]).raise_for_status()
    response = client.get(f"{BOOKS}/deeds/ev\u00efl.html/original")
    assert response.content == page
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-media-type"] == "text/html"


def test_a_document_given_as_text_has_its_text_as_original(shelf: TestClient) -> None:
    response = shelf.get(f"{BOOKS}/whale/original")
    assert response.content == WHALE.encode()
    assert response.headers["content-disposition"].startswith("attachment")


def test_an_original_that_is_there_already_is_not_sent_again(client: TestClient) -> None:
    for name, content in (("a.html", b"<p>The tenant pays.</p>"), ("b.html", b"<p>The miller pays.</p>")):
        client.post(BOOKS, files=[("files", (name, content, "text/html"))]).raise_for_status()
    client.post(BOOKS, json={"documents": [{"id": "t", "text": WHALE}]}).raise_for_status()
    for name in ("a.html", "b.html", "t"):
        path = f"{BOOKS}/{name}/original"
        whole = client.get(path)
        tag = whole.headers["etag"]
        for named in (tag, f'"x", W/{tag}', "*"):
            same = client.get(path, headers={"If-None-Match": named})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert client.get(path, headers={"If-None-Match": '"x"'}).content == whole.content
    assert client.get(f"{BOOKS}/a.html/original").headers["etag"] != tag
    part = client.get(f"{BOOKS}/a.html/original", headers={"Range": "bytes=3-5"})
    assert (part.status_code, part.content) == (206, b"The")
    described = client.get("/openapi.json").json()["paths"]
    told = described["/v1/collections/{collection}/documents/{document_id}/original"]["get"]["responses"]
    assert {"200", "206", "304", "416"} <= set(told)


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ("bytes=5-2", 400, "bad_request"),
        ("bytes=x", 400, "bad_request"),
        ("bytes", 400, "bad_request"),
        ("bytes=100-", 416, "range_not_satisfiable"),
        ("bytes=-0", 416, "range_not_satisfiable"),
    ],
)
def test_a_range_that_cannot_be_is_a_problem(client: TestClient, wanted: str, status: int, code: str) -> None:
    page = b"<p>The tenant pays.</p>"
    client.post(BOOKS, files=[("files", ("a.html", page, "text/html"))]).raise_for_status()
    refused = client.get(f"{BOOKS}/a.html/original", headers={"Range": wanted})
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert (refused.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["remedy"]
    assert refused.headers.get("content-range") == (f"bytes */{len(page)}" if status == 416 else None)
    whole = client.get(f"{BOOKS}/a.html/original", headers={"Range": "lines=0-3"})
    assert (whole.status_code, whole.content) == (200, page)


def test_an_original_that_goes_away_meanwhile_is_no_defect(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<p>The tenant pays.</p>"
    client.post(BOOKS, files=[("files", ("a.html", page, "text/html"))]).raise_for_status()
    monkeypatch.setattr(Ledger, "original", lambda self, *_: self.root / "gone")
    response = client.get(f"{BOOKS}/a.html/original")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "again" in response.json()["remedy"]


def test_a_version_that_is_about_to_be_removed_is_not_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Originals, "remove", lambda *_: None)
    monkeypatch.setattr(Ledger, "forget", lambda *_: None)
    for text in (LEASE, WHALE):
        client.post(BOOKS, json={"documents": [{"id": "a", "text": text}]}).raise_for_status()
    for part in ("", "/text", "/original"):
        assert client.get(f"{BOOKS}/a{part}", params={"version": 1}).status_code == 404
    assert client.get(f"{BOOKS}/a/text", params={"version": 2}).text == WHALE


@pytest.mark.parametrize("name", ["..", "deeds/."])
def test_no_client_is_told_to_call_a_file_like_a_folder(client: TestClient, name: str) -> None:
    made = client.post(BOOKS, files=[("files", (name, b"The tenant pays.", "text/plain"))]).json()
    [document] = made["documents"]
    response = client.get(f"{BOOKS}/{document['document_id']}/original")
    assert response.headers["content-disposition"] == 'attachment; filename="document"'


def test_kept_versions_are_read_by_number(client: TestClient) -> None:
    pages = [f"<p>The rent is {pounds} pounds.</p>".encode() for pounds in ("forty", "fifty", "sixty")]
    for page in pages:
        upload = {"files": [("files", ("lease.html", page, "text/html"))]}
        client.post(BOOKS, params={"on_conflict": "new_version"}, **upload).raise_for_status()
    for number, word in ((1, "forty"), (2, "fifty"), (3, "sixty"), (None, "sixty")):
        asked = {} if number is None else {"version": number}
        text = client.get(f"{BOOKS}/lease.html/text", params=asked)
        assert text.text == f"The rent is {word} pounds."
        assert text.headers["x-document-version"] == str(number or 3)
        original = client.get(f"{BOOKS}/lease.html/original", params=asked)
        assert original.content == pages[(number or 3) - 1]
        assert original.headers["x-document-version"] == str(number or 3)
    for part in ("text", "original"):
        missing = client.get(f"{BOOKS}/lease.html/{part}", params={"version": 4})
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert "newest first: 3, 2, 1;" in missing.json()["remedy"]
        for wrong in (0, 2**31, "old"):
            assert client.get(f"{BOOKS}/lease.html/{part}", params={"version": wrong}).status_code == 422
    client.delete(f"{BOOKS}/lease.html").raise_for_status()
    assert client.get(f"{BOOKS}/lease.html/text", params={"version": 1}).status_code == 404


def test_a_collection_is_made_looked_at_and_dropped(client: TestClient) -> None:
    made = client.post("/v1/collections", json={"name": "empty"})
    assert made.status_code == 201
    assert made.json() == client.get("/v1/collections/empty").json()
    assert (made.json()["documents"], made.json()["points"]) == (
        0, {"documents": 0, "passages": 0, "units": 0}
    )  # fmt: skip
    assert client.post("/v1/collections", json={"name": "empty"}).status_code == 409
    found = client.post("/v1/collections/empty/search", json={"query": "anything"}).json()
    assert found["hits"] == []
    assert client.delete("/v1/collections/empty").status_code == 204
    assert client.get("/v1/collections/empty").status_code == 404


def test_a_collection_keeps_its_own_settings(client: TestClient) -> None:
    """Shorter passages and another language than configured, for writing and for reading."""
    own = {
        "name": "mine",
        "chunking": {"passage_tokens": 24, "unit_tokens": 12, "unit_min_tokens": 4},
        "analyser": {"language": "german", "bigram_weight": 0.0},
    }
    client.post("/v1/collections", json=own).raise_for_status()
    german = "Die Häuser am Fluss wurden verkauft. Der Müller zahlt vierzig Pfund im Jahr. " * 8
    upload = client.post("/v1/collections/mine/documents", json={"documents": [{"id": "d", "text": german}]})
    assert upload.status_code == 200, upload.text
    look = client.get("/v1/collections/mine").json()
    assert look["chunking"]["passage_tokens"] == 24
    assert look["analyser"]["language"] == "german"
    chunks = client.get("/v1/collections/mine/documents/d/chunks").json()["chunks"]
    assert len(chunks) > 3
    assert max(chunk["tokens"] for chunk in chunks) <= 24
    hit = client.post("/v1/collections/mine/search", json={"query": "Haus"}).json()["hits"][0]
    assert hit["scores"]["lexical"] > 0, "the German stem of Häuser and Haus is the same"
    answer = client.post(
        "/v1/collections/mine/answer", json={"query": "Wie viel zahlt der Müller?", "mode": "extractive"}
    )
    assert answer.status_code == 200
    usual = client.post("/v1/collections/usual/documents", json={"documents": [{"id": "d", "text": german}]})
    assert usual.status_code == 200, "collections without settings go on as configured"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"name": "a/b"}, 422),
        ({"name": ""}, 422),
        ({"name": "x", "embedder": "sentence_transformer"}, 422),
        ({"name": "x", "chunking": {"passage_tokens": 1}}, 422),
        ({"name": "x", "chunking": {"pages": 1}}, 422),
        ({"name": "x", "analyser": {"language": "klingon"}}, 422),
        ({"name": "x", "analyser": {"k1": "high"}}, 422),
        ({"name": "x", "analyser": {"stems": 1}}, 422),
        ({"name": "x", "colour": "red"}, 422),
    ],
    ids=str,
)
def test_a_collection_of_nonsense_is_not_made(client: TestClient, wrong: dict, status: int) -> None:
    response = client.post("/v1/collections", json=wrong)
    assert response.status_code == status, response.text
    assert response.json()["remedy"]
    assert client.get("/v1/collections").json() == {"collections": []}


def test_repair_rebuilds_each_collection_with_its_own_settings(client: TestClient) -> None:
    from pipeline import reconcile

    own = {"name": "mine", "chunking": {"passage_tokens": 24, "unit_tokens": 12, "unit_min_tokens": 4}}
    client.post("/v1/collections", json=own).raise_for_status()
    for name in ("mine", "usual"):
        document = {"id": "d", "text": LONG}
        client.post(f"/v1/collections/{name}/documents", json={"documents": [document]}).raise_for_status()
    longleaf = client.app.state.service.longleaf  # type: ignore[attr-defined]
    before = client.get("/v1/collections/mine").json()["points"]
    longleaf.indexer.drop("default/mine/passages")
    done = reconcile.repair(
        longleaf.ledger,
        longleaf.indexer,
        longleaf.embedder,
        longleaf.analyser,
        longleaf.settings.chunking,
        parts=lambda record: longleaf.benches.parts(record.settings.get("own", {})),
    )
    assert [(r.collection, r.rebuilt_documents, r.failed) for r in done] == [
        ("mine", 1, {}),
        ("usual", 0, {}),
    ]
    assert client.get("/v1/collections/mine").json()["points"] == before


def test_calibrations_are_listed(client: TestClient, settings: Settings) -> None:
    before = client.get("/v1/calibrations").json()["calibrations"]
    folder = settings.data / "calibrations"
    folder.mkdir()
    (folder / "0123456789abcdef.json").write_text(
        '{"model": "m", "revision": "r", "heads": [[1, 2]], "format": 1}'
    )
    made, *shipped = client.get("/v1/calibrations").json()["calibrations"]
    assert shipped == before
    assert (made["id"], made["origin"], made["model"]) == ("0123456789abcdef", "made here", "m")
    assert made["measured"]["heads"] == [[1, 2]]
    (folder / "damaged.json").write_text("{")
    assert client.get("/v1/calibrations").status_code == 503

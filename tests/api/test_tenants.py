"""Keys, tenants and quotas over HTTP: who may touch what."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from small_library import DOCUMENTS, client_of
from starlette.testclient import TestClient

from api.keys import KeyRing
from api.quotas import Buckets
from api.sections import Quota, QuotaSettings, Settings

BOOKS = "/v1/collections/books"
# A body that some route takes, and none may look at.
WHATEVER = {"name": "new", "query": "lease", "model": "default", "input": "lease", "documents": DOCUMENTS}
Headers = dict[str, str]


@pytest.fixture
def key(settings: Settings) -> Callable[..., Headers]:
    """Makes a key and gives the header that carries it."""

    def make(**options: object) -> Headers:
        return {"authorization": f"Bearer {KeyRing(settings.data).create('test', **options)}"}  # type: ignore[arg-type]

    return make


def fill(client: TestClient, headers: Headers, collection: str = "books") -> None:
    upload = client.post(
        f"/v1/collections/{collection}/documents", json={"documents": DOCUMENTS}, headers=headers
    )
    assert upload.status_code == 200, upload.text


def test_tenants_have_collections_of_equal_names(client: TestClient, key: Callable[..., Headers]) -> None:
    acme, rival = key(tenant="acme"), key(tenant="rival")
    fill(client, acme)
    assert client.get("/v1/collections", headers=rival).json() == {"collections": []}
    assert client.post(f"{BOOKS}/search", json={"query": "lease"}, headers=rival).status_code == 404
    own = [{"id": "lease", "text": "The rival rents a barn for nine guilders a year."}]
    client.post(f"{BOOKS}/documents", json={"documents": own}, headers=rival).raise_for_status()
    assert "guilders" in client.get(f"{BOOKS}/documents/lease/text", headers=rival).text
    assert "forty pounds" in client.get(f"{BOOKS}/documents/lease/text", headers=acme).text
    client.delete(BOOKS, headers=rival).raise_for_status()
    assert client.get(f"{BOOKS}/documents/lease", headers=acme).status_code == 200


def test_a_key_opens_only_its_collections(client: TestClient, key: Callable[..., Headers]) -> None:
    everything, some = key(), key(collections=("books", "notes-*"))
    fill(client, everything)
    fill(client, everything, "secret")
    fill(client, some, "notes-2024")
    names = [c["name"] for c in client.get("/v1/collections", headers=some).json()["collections"]]
    assert names == ["books", "notes-2024"]
    for method, path, body in (
        ("POST", "/search", {"query": "lease"}),
        ("POST", "/answer", {"query": "lease"}),
        ("GET", "/documents", None),
        ("GET", "/documents/lease", None),
        ("GET", "/documents/lease/text", None),
        ("GET", "/documents/lease/chunks", None),
        ("GET", "/documents/lease/original", None),
        ("DELETE", "/documents/lease", None),
        ("POST", "/documents", {"documents": DOCUMENTS}),
        ("GET", "", None),
        ("DELETE", "", None),
    ):
        for name in ("secret", "not-there"):  # the same, whether there is such a collection or not
            refused = client.request(method, f"/v1/collections/{name}{path}", json=body, headers=some)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), path
    refused = client.post("/v1/collections", json={"name": "secret2"}, headers=some)
    assert refused.status_code == 403


def test_a_key_for_reading_changes_nothing(client: TestClient, key: Callable[..., Headers]) -> None:
    fill(client, key())
    reader = key(access="read")
    assert client.post(f"{BOOKS}/search", json={"query": "lease"}, headers=reader).status_code == 200
    for method, path, body in (
        ("POST", f"{BOOKS}/documents", {"documents": DOCUMENTS}),
        ("DELETE", f"{BOOKS}/documents/lease", None),
        ("DELETE", BOOKS, None),
        ("POST", "/v1/collections", {"name": "new"}),
    ):
        assert client.request(method, path, json=body, headers=reader).status_code == 403


@pytest.mark.parametrize("named", ["default", "not-there"])
def test_a_key_for_operation_sees_numbers_and_nothing_else(
    client: TestClient, key: Callable[..., Headers], named: str
) -> None:
    fill(client, key(), "default")
    operator = key(access="operate")
    assert client.get("/metrics", headers=operator).status_code == 200
    description = client.get("/openapi.json", headers=operator).json()
    asked = 0
    for path, item in description["paths"].items():
        if path in ("/metrics", "/livez", "/readyz"):
            continue
        for method in item:
            address = re.sub(r"\{\w+\}", named, path)
            refused = client.request(method, address, headers=operator, json=WHATEVER)
            assert refused.status_code == 403, (method, path, refused.text)
            asked += 1
    assert asked >= 25


def limited(settings: Settings, **limits: int) -> TestClient:
    quotas = QuotaSettings(tenants={"small": Quota(**limits)})
    return client_of(settings.model_copy(update={"quotas": quotas}))


@pytest.mark.parametrize("limits", [{"documents": 4}, {"bytes": 600}], ids=str)
def test_a_quota_of_storage_refuses_before_any_work(
    settings: Settings, key: Callable[..., Headers], limits: dict[str, int]
) -> None:
    small, other = key(tenant="small"), key(tenant="other")
    with limited(settings, **limits) as client:
        fill(client, small)
        refused = client.post(f"{BOOKS}2/documents", json={"documents": DOCUMENTS}, headers=small)
        assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
        names = [c["name"] for c in client.get("/v1/collections", headers=small).json()["collections"]]
        assert names == ["books"]
        fill(client, other)
        fill(client, other, "books2")
        client.delete(BOOKS, headers=small).raise_for_status()
        fill(client, small)


def test_a_quota_of_requests_says_when_to_come_again(settings: Settings, key: Callable[..., Headers]) -> None:
    first, second = key(tenant="small"), key(tenant="small")
    with limited(settings, requests_per_minute=3) as client:
        answers = [client.get("/v1/collections", headers=first).status_code for _ in range(4)]
        assert answers == [200, 200, 200, 429]
        refused = client.get("/v1/collections", headers=first)
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert client.get("/v1/collections", headers=second).status_code == 200


def test_a_quota_of_tokens_counts_what_was_read(settings: Settings, key: Callable[..., Headers]) -> None:
    small = key(tenant="small")
    with limited(settings, tokens_per_minute=40) as client:
        fill(client, small)  # about 120 tokens: the bucket is left below zero
        refused = client.post(f"{BOOKS}/search", json={"query": "lease"}, headers=small)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 60
        assert client.get(BOOKS, headers=small).status_code == 200, "looking costs no tokens"


def test_buckets_fill_up_steadily() -> None:
    now = 0.0
    buckets = Buckets(lambda: now)
    assert [buckets.take("a", 1, 60) for _ in range(60)] == [0.0] * 60
    assert buckets.take("a", 1, 60) == pytest.approx(1.0)
    now = 0.5
    assert buckets.take("a", 1, 60) == pytest.approx(0.5)
    now = 1.0
    assert buckets.take("a", 1, 60) == 0.0
    buckets.spend("b", 180, 60)
    assert buckets.take("b", 1, 60) == pytest.approx(121.0)
    now = 122.0
    assert buckets.take("b", 1, 60) == 0.0

"""Cached contexts over HTTP: modes per request, usage, metrics, bad values, concurrent users."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_library import DOCUMENTS, client_of, fill, small_settings

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))

from tiny_networks import make_network, make_tokenizer

from api.sections import LanguageModelSettings, ModelSettings
from pipeline.lm.context_options import ContextsConfig
from pipeline.retrieval_config import RetrievalConfig

ASKED = {"query": "When may either party end the lease?", "mode": "composed", "max_tokens": 12}


def with_tiny_model(root, **more):
    make_network("llama").save_pretrained(root / "tiny")
    make_tokenizer().save_pretrained(root / "tiny")
    update = {
        "language_model": LanguageModelSettings(spec=str(root / "tiny")),
        "models": ModelSettings(cache=root / "cache"),
    }
    return small_settings(root).model_copy(update=update | more)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with client_of(with_tiny_model(tmp_path_factory.mktemp("contexts"))) as client:
        fill(client)
        yield client


def ask(client, **options):
    response = client.post("/v1/collections/books/answer", json={**ASKED, **options})
    assert response.status_code == 200, response.text
    return response.json()


def test_an_answer_from_cached_passages_tells_what_was_cached(client):
    first = ask(client, context="ape", attended=2)
    assert first["usage"]["attended_passages"] == 2
    again = ask(client, context="ape", attended=2)
    assert again["usage"]["cached_tokens"] > 0
    assert again["usage"]["encoded_tokens"] == 0
    assert not [said for said in again["degraded"] if "cached contexts" in said]
    seen = [hit["scores"].get("attention") for hit in again["context"]["passages"]]
    assert sum(mass is not None for mass in seen) == 2
    assert again["text"] == first["text"]


def test_other_modes_attend_nothing(client):
    for mode in ("sequential", "prefix", "auto", None):
        assert "attended_passages" not in ask(client, context=mode)["usage"]


def test_a_stream_ends_with_the_same_usage(client):
    body = {**ASKED, "context": "ape", "attended": 2, "stream": True}
    with client.stream("POST", "/v1/collections/books/answer", json=body) as response:
        text = "".join(response.iter_text())
    assert "event: done" in text
    assert '"attended_passages":2' in text.replace(" ", "")


def test_users_at_the_same_time_get_what_they_would_alone(client):
    asked = [{"context": "ape", "attended": n % 3 + 1, "max_tokens": 6 + n} for n in range(6)]
    alone = [ask(client, **options) for options in asked]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda options: ask(client, **options), asked))
    for one, other in zip(alone, together, strict=True):
        assert other["text"] == one["text"]
        assert other["usage"]["attended_passages"] == one["usage"]["attended_passages"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": "fast"},
        {"attended": 0},
        {"attended": 257},
        {"context_temperature": 0},
        {"context_temperature": 11},
        {"context_scale": -1},
        {"context": 3},
    ],
)
def test_wrong_values_are_refused(client, wrong):
    response = client.post("/v1/collections/books/answer", json={**ASKED, **wrong})
    assert response.status_code == 422
    assert next(iter(wrong)) in response.text


def test_metrics_tell_bytes_and_the_guard(client):
    ask(client, context="ape")
    text = client.get("/metrics").text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    lines = {name: float(value) for name, value in pairs}
    assert lines['longleaf_contexts_bytes{part="memory"}'] > 0
    assert lines['longleaf_contexts_bytes{part="disk"}'] > 0
    assert lines['longleaf_contexts_guard{part="drifted"}'] == 0
    assert lines['longleaf_kv_tokens_total{event="hit"}'] > 0
    assert lines['longleaf_kv_tokens_total{event="evicted"}'] == 0


def test_a_job_caches_what_it_has_stored(tmp_path):
    """With the policy `ingestion`: the first question finds every passage there. Deletion takes it away."""
    settings = with_tiny_model(
        tmp_path,
        contexts=ContextsConfig(build="ingestion"),
        retrieval=RetrievalConfig(max_merged_tokens=0),
    )
    with client_of(settings) as client:
        sent = client.post(
            "/v1/collections/books/documents", params={"wait": False}, json={"documents": DOCUMENTS}
        )
        place = f"/v1/jobs/{sent.json()['id']}"
        with client.stream("GET", f"{place}/events") as response:
            told = "".join(response.iter_text())
        assert told.replace(" ", "").count('"detail":"caching"') == 3
        assert client.get(place).json()["state"] == "done"
        assert len(list((tmp_path / "data" / "kv").rglob("*.safetensors"))) >= 3
        usage = ask(client, context="ape", attended=3)["usage"]
        assert (usage["encoded_tokens"], usage["cached_tokens"] > 0) == (0, True)
        for document in DOCUMENTS:
            client.delete(f"/v1/collections/books/documents/{document['id']}")
        assert not list((tmp_path / "data" / "kv").rglob("*.safetensors"))


def test_a_deleted_document_leaves_no_states(client, tmp_path_factory):
    ask(client, context="ape", attended=3)
    data = next(tmp_path_factory.getbasetemp().glob("contexts*/data/kv"))
    client.app.state.service.longleaf.contexts.store.flush()
    before = len(list(data.rglob("*.safetensors")))
    assert client.delete("/v1/collections/books/documents/frost").status_code in (200, 204)
    after = len(list(data.rglob("*.safetensors")))
    assert after == before - 1

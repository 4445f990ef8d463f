"""Remote embedders against a server in this process: what is sent, what comes back, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from embedding_server import HASHING, WINDOW, Server, running, token_vectors, tokens, vector

from embedders import openai, tei
from embedders._http import batches
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import ConfigurationError, EmbeddingError, UnavailableError
from pipeline.types import ChunkedDocument, Document

SIZES = ChunkConfig(24, 12, 4)
SENTENCES = ["The tenant pays rent on the first day.", "A duck swims on the lake.", "Owners repair the roof."]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("embedders._http.time.sleep", lambda _: None)
    with running() as server:
        yield server


def cut(embedder, sentences: int = 40) -> ChunkedDocument:
    text = " ".join(f"{SENTENCES[i % 3]} Number {i}." for i in range(sentences))
    return chunk(Document("Lease", text), embedder.encode(text), SIZES)


def remote(server: Server, **options: object) -> openai.OpenAIEmbedder:
    return openai.build(openai.Config(**{"url": server.url + "/v1", "model": "m", **options}))


def inference(server: Server, **options: object) -> tei.TeiEmbedder:
    return tei.build(tei.Config(**{"url": server.url, "overlap_tokens": 8, **options}))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_vectors_are_in_order_whatever_the_answers_order(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    embedder = remote(
        server, api_key_file=key, batch_texts=7, query_prompt="q: ", query_fields={"task": "ask"}
    )
    doc = cut(embedder)
    told: list[int] = []
    (found,) = embedder.embed_documents([doc], told.append)
    np.testing.assert_allclose(found.units, [vector(u.text) for u in doc.units], atol=1e-6)
    np.testing.assert_allclose(found.passages, [vector(p.text) for p in doc.passages], atol=1e-6)
    assert found.windowing == "each chunk alone: the server gives one vector a text"
    assert sum(told) == len(doc.encoding)
    (query,) = embedder.embed_queries(["rent"]).vectors
    np.testing.assert_allclose(query, vector("q: rent"), atol=1e-6)
    assert server.seen[-1][1]["task"] == "ask"
    assert {headers.get("Authorization") for _, _, headers in server.seen} == {"Bearer secret"}
    assert all(len(body["input"]) <= 7 for _, body, _ in server.seen)
    assert "secret" not in str(embedder.fingerprint)


def test_late_chunking_in_the_server(server: Server) -> None:
    embedder = remote(server, late_chunking=True, window_tokens=60)
    doc = cut(embedder)
    (found,) = embedder.embed_documents([doc])
    late = [body for _, body, _ in server.seen if body.get("late_chunking")]
    assert sum(len(body["input"]) for body in late) == len(doc.units) + len(doc.passages)
    assert all(sum(len(HASHING.encode(t)) for t in body["input"]) <= 60 for body in late)
    assert found.windowing.endswith("requests with late chunking in the server")
    first = next(b for b in late if b["input"][0] == doc.units[0].text and len(b["input"]) > 2)
    alone = np.array([vector(t) for t in first["input"]])
    expected = unit(alone + alone.mean(0) / 2)
    np.testing.assert_allclose(found.units[: len(expected)], expected, atol=1e-6)
    assert "late_chunking" in str(embedder.fingerprint)


def test_a_width_is_asked_for_or_found_out(server: Server) -> None:
    assert remote(server).fingerprint.dim == 64
    asked = remote(server, dim=16)
    assert asked.embed_queries(["rent"]).vectors.shape == (1, 16)
    assert server.seen[-1][1]["dimensions"] == 16


def test_a_busy_server_is_asked_again(server: Server) -> None:
    busy = (503, {"error": "loading"}, {})
    server.fail = [busy, (429, "slow down", {"Retry-After": "1"})]
    embedder = remote(server, dim=64, attempts=3)
    np.testing.assert_allclose(embedder.embed_queries(["rent"]).vectors[0], vector("rent"), atol=1e-6)
    assert len(server.seen) == 3
    server.fail = [busy] * 3
    with pytest.raises(UnavailableError, match="3 attempts: 503 loading"):
        embedder.embed_queries(["rent"])


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((401, {"error": {"message": "bad key"}}, {}), ConfigurationError, "refuses the key .*bad key"),
        ((404, {"error": "no such model"}, {}), ConfigurationError, "no such model"),
        ((400, {"error": {"message": "too long: 9000"}}, {}), EmbeddingError, "too long: 9000"),
        ((413, "Payload Too Large", {}), EmbeddingError, "Payload Too Large"),
        ((200, "<html>hello</html>", {}), UnavailableError, "not answer in JSON: <html>"),
        ((200, {"object": "list"}, {}), EmbeddingError, "not that of an embeddings endpoint"),
        ((200, {"data": []}, {}), EmbeddingError, "0 vectors for 1 texts"),
        (
            (200, {"data": [{"index": 0, "embedding": [1, 2]}]}, {}),
            EmbeddingError,
            r"'rent' has shape \(2,\)",
        ),
    ],
)
def test_what_a_server_may_say_instead(server: Server, answer: tuple, error: type, told: str) -> None:
    server.fail = [answer]
    with pytest.raises(error, match=told):
        remote(server, dim=64).embed_queries(["rent"])


def test_a_server_that_is_not_there() -> None:
    gone = openai.build(openai.Config(url="http://127.0.0.1:1/v1", dim=64, attempts=1))
    with pytest.raises(UnavailableError, match="did not answer in 1 attempts: ConnectError"):
        gone.embed_queries(["rent"])


@pytest.mark.parametrize("kind", [remote, inference])
def test_numbers_that_are_not_finite_name_the_chunk(server: Server, kind) -> None:
    embedder = kind(server)
    doc = cut(embedder)
    server.nan = "Number 7"
    with pytest.raises(EmbeddingError, match=r"of 'Lease' .*shape|of 'Lease' .*length nan"):
        embedder.embed_documents([doc])


def test_addresses_keys_and_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    for options, told in (
        ({"url": "api.example"}, "Begin it with http"),
        ({"api_key_file": tmp_path / "none"}, "cannot be read"),
        ({"tokenizer": tmp_path}, "has no tokenizer.json"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            openai.build(openai.Config(**options))
    (tmp_path / "key").write_text("two\nlines")
    with pytest.raises(ConfigurationError, match="hold a key alone"):
        openai.build(openai.Config(api_key_file=tmp_path / "key"))


def test_token_vectors_of_a_server_are_late_chunks(server: Server) -> None:
    """One window, by definition: means of the vectors of the tokens in each chunk."""
    embedder = inference(server, passage_late=1, unit_late=1)
    doc = cut(embedder, 4)
    (found,) = embedder.embed_documents([doc])
    assert found.windowing == "single window"
    text = doc.document.text[doc.encoding.offsets[0, 0] : doc.encoding.offsets[-1, 1]]
    places, vectors = tokens(text, special=True), np.array(token_vectors(text))
    for u, ours in zip(doc.units, found.units, strict=True):
        inside = [i for i, t in enumerate(places) if not t["special"] and u.start <= t["start"] < u.end]
        mean = vectors[inside].mean(0)
        np.testing.assert_allclose(ours, mean / np.linalg.norm(mean), atol=1e-5)
    assert (embedder.fingerprint.model, embedder.fingerprint.window_tokens) == ("tiny/hashing", WINDOW)


def test_a_long_text_goes_in_windows_and_is_blended(server: Server) -> None:
    late, own = inference(server, passage_late=1, unit_late=1), inference(server, passage_late=0, unit_late=0)
    doc = cut(late)
    told: list[int] = []
    (a,), (b,) = late.embed_documents([doc], told.append), own.embed_documents([doc])
    assert sum(told) == len(doc.encoding) > 3 * WINDOW
    assert "overlapping windows of 60 tokens" in a.windowing
    assert "alone" in b.windowing
    sent = [body["inputs"][0] for path, body, _ in server.seen if path == "/embed_all"]
    assert all(len(tokens(text, special=True)) <= WINDOW for text in sent)
    np.testing.assert_allclose(b.units, [vector(u.text) for u in doc.units], atol=1e-6)
    (mixed,) = inference(server, passage_late=0.25, unit_late=0.75).embed_documents([doc])
    np.testing.assert_allclose(mixed.units, unit(0.75 * a.units + 0.25 * b.units), atol=1e-5)
    np.testing.assert_allclose(mixed.passages, unit(0.25 * a.passages + 0.75 * b.passages), atol=1e-5)


def test_titles_have_a_share(server: Server) -> None:
    embedder, without = inference(server), inference(server, passage_title=0, unit_title=0)
    doc = cut(embedder, 4)
    named = replace(doc, document=replace(doc.document, title="A lake"))
    (bare,) = without.embed_documents([named])
    assert "A lake" not in str(server.seen)
    (found,) = embedder.embed_documents([named])
    heading = np.array([vector("A lake")])
    np.testing.assert_allclose(found.passages, unit(bare.passages + heading), atol=1e-5)
    np.testing.assert_allclose(found.units, unit(0.75 * bare.units + 0.25 * heading), atol=1e-5)
    assert embedder.fingerprint != without.fingerprint


def test_a_server_whose_model_is_not_mean_pooled_is_refused_unless_allowed(server: Server) -> None:
    server.pooling = "cls"
    with pytest.raises(ConfigurationError, match="pools by 'cls'"):
        inference(server).embed_queries(["rent"])
    for options in ({"allow_pooling_mismatch": True}, {"passage_late": 0, "unit_late": 0}):
        assert inference(server, **options).fingerprint.pooling == "cls"


def test_requests_are_bounded() -> None:
    runs = batches([5, 5, 5, 50, 1, 1, 1], 3, 12)
    assert runs == [range(2), range(2, 3), range(3, 4), range(4, 7)]
    assert batches([], 3, 12) == []

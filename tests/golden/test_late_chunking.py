"""Late chunking equals its plain definition, computed with transformers one window at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.late_chunking import Config, LateChunkingEmbedder, build
from pipeline.chunk import ChunkConfig, chunk
from pipeline.encoder.windowing import windows
from pipeline.errors import ConfigurationError, EmbeddingError
from pipeline.types import ChunkedDocument, Document, Encoding

SIZES = ChunkConfig(passage_tokens=24, unit_tokens=10, unit_min_tokens=3)
Make = Callable[..., Path]


def embedder(folder: Path, **options: object) -> LateChunkingEmbedder:
    return build(Config(model=str(folder), dtype="float32", **options))


def document(ours: LateChunkingEmbedder, sentences: int, seed: int = 0) -> ChunkedDocument:
    rng = np.random.default_rng(seed)
    words = ["the", "tenant", "pays", "rent", "duck", "swims", "on", "a", "lake", "zebra"]
    text = " ".join(" ".join(rng.choice(words, rng.integers(1, 12))) + "." for _ in range(sentences))
    return chunk(Document("t", text), ours.encode(text), SIZES)


def token_vectors(folder: Path, ids: np.ndarray) -> np.ndarray:
    """Last layer of transformers for [CLS] ids [SEP], without these two."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(input_ids=torch.tensor([[2, *ids.tolist(), 3]])).last_hidden_state[0]
    return states.numpy()[1:-1]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def means(vectors: np.ndarray, chunks: tuple) -> np.ndarray:
    return unit(np.stack([vectors[c.token_start : c.token_end].mean(0) for c in chunks]))


def test_one_window_is_the_plain_definition(bert: Path) -> None:
    ours = embedder(bert, passage_late=1, unit_late=1)
    doc = document(ours, 40)
    assert 300 < len(doc.encoding) < 542
    (found,) = ours.embed_documents([doc])
    vectors = token_vectors(bert, doc.encoding.ids)
    np.testing.assert_allclose(found.passages, means(vectors, doc.passages), atol=1e-5)
    np.testing.assert_allclose(found.units, means(vectors, doc.units), atol=1e-5)
    assert found.windowing == "single window"


def test_windows_keep_the_vector_farther_from_the_edge(bert: Path) -> None:
    ours = embedder(bert, passage_late=1, unit_late=1, window_tokens=66, overlap_tokens=20)
    doc = document(ours, 60)
    (found,) = ours.embed_documents([doc])
    total = len(doc.encoding)
    plan = ours.windows(total)
    assert len(plan) > 4
    kept = np.full((total, 32), np.nan, np.float32)
    margin = np.zeros(total)
    for window in plan:
        vectors = token_vectors(bert, doc.encoding.ids[window.start : window.stop])
        for t in range(window.start, window.stop):
            left = np.inf if window.start == 0 else t - window.start + 0.5
            right = np.inf if window.stop == total else window.stop - t - 0.5
            # The seam lies in the middle of what two windows share; an odd share leaves a tie.
            if min(left, right) > margin[t] or (min(left, right) == margin[t] and t >= window.keep_start):
                margin[t], kept[t] = min(left, right), vectors[t - window.start]
    np.testing.assert_allclose(found.passages, means(kept, doc.passages), atol=1e-5)
    np.testing.assert_allclose(found.units, means(kept, doc.units), atol=1e-5)
    shared = min(a.stop - b.start for a, b in pairwise(plan))
    assert shared >= 20
    assert found.windowing == (
        f"{len(plan)} overlapping windows of 64 tokens, {shared} shared: the text has {total} tokens "
        "and a window 64"
    )


def test_more_overlap_comes_closer_to_one_long_pass(bert: Path) -> None:
    long = embedder(bert, passage_late=1, unit_late=1)
    doc = document(long, 60)
    (whole,) = long.embed_documents([doc])
    cosines = []
    for overlap in (0, 120):
        short = embedder(bert, passage_late=1, unit_late=1, window_tokens=272, overlap_tokens=overlap)
        (parts,) = short.embed_documents([doc])
        cosines.append((parts.units * whole.units).sum(1).mean())
    assert 0.8 < cosines[0] < cosines[1]


def test_own_vectors_and_the_blend(bert: Path) -> None:
    ours = embedder(bert, passage_late=0, unit_late=0)
    doc = document(ours, 40)
    (own,) = ours.embed_documents([doc])
    # A unit that was cut within a word has other tokens than its text would have.
    ids = doc.encoding.ids
    same = [np.array_equal(ours.encode(u.text).ids, ids[u.token_start : u.token_end]) for u in doc.units]
    whole = np.flatnonzero(same)
    assert len(whole) > 0.9 * len(doc.units)
    queries = ours.embed_queries([doc.units[i].text for i in whole]).vectors
    np.testing.assert_allclose(own.units[whole], queries, atol=1e-5)
    assert own.windowing == "each chunk alone: late vectors have no weight"
    inner = ours._inner.encoder.pooled([doc.encoding.ids[u.token_start : u.token_end] for u in doc.units])
    weights = np.array([u.token_end - u.token_start for u in doc.units], np.float32)
    parents = np.array([u.parent for u in doc.units])
    sums = [(inner * weights[:, None])[parents == p].sum(0) for p in range(len(doc.passages))]
    np.testing.assert_allclose(own.passages, unit(np.stack(sums)), atol=1e-5)

    (late,) = embedder(bert, passage_late=1, unit_late=1).embed_documents([doc])
    (mixed,) = embedder(bert, passage_late=0.3, unit_late=0.8).embed_documents([doc])
    np.testing.assert_allclose(mixed.units, unit(0.8 * late.units + 0.2 * own.units), atol=1e-5)
    np.testing.assert_allclose(mixed.passages, unit(0.3 * late.passages + 0.7 * own.passages), atol=1e-5)


def test_one_kind_may_be_late_and_the_other_alone(bert: Path) -> None:
    ours = embedder(bert, passage_late=1, unit_late=0)
    doc = document(ours, 30)
    (found,) = ours.embed_documents([doc])
    (late,) = embedder(bert, passage_late=1, unit_late=1).embed_documents([doc])
    (own,) = embedder(bert, passage_late=0, unit_late=0).embed_documents([doc])
    np.testing.assert_allclose(found.passages, late.passages, atol=1e-6)
    np.testing.assert_allclose(found.units, own.units, atol=1e-6)


def test_a_title_that_the_text_does_not_say_has_a_share(bert: Path) -> None:
    options = {"window_tokens": 50, "overlap_tokens": 8}
    ours = embedder(bert, passage_title=0.4, unit_title=0.2, **options)
    without = embedder(bert, passage_title=0, unit_title=0, **options)
    doc = document(ours, 30)
    named = [
        replace(doc, document=replace(doc.document, title=title))
        for title in ("a duck swims", "lease_0412.pdf", doc.document.text[:40], "rent zebra " * 100)
    ]
    (bare,) = without.embed_documents([doc])
    told: list[int] = []
    found = ours.embed_documents(named, told.append)
    assert sum(told) == 4 * len(doc.encoding)
    for at in (1, 2):  # a name of a file, and what the text begins with
        np.testing.assert_allclose(found[at].passages, bare.passages, atol=1e-6)
        np.testing.assert_allclose(found[at].units, bare.units, atol=1e-6)
    for at in (0, 3):  # the last one is longer than a window
        title = named[at].document.title
        ids = ours.encode(title).ids
        heading = unit(ours._inner.encoder.pooled([ids]))
        if len(ids) < 50:
            np.testing.assert_allclose(heading, ours.embed_queries([title]).vectors, atol=1e-6)
        expected = unit(0.6 * bare.passages + 0.4 * heading)
        np.testing.assert_allclose(found[at].passages, expected, atol=1e-5)
        np.testing.assert_allclose(found[at].units, unit(0.8 * bare.units + 0.2 * heading), atol=1e-5)
    (same,) = without.embed_documents(named[:1])
    np.testing.assert_array_equal(same.passages, bare.passages)


def test_documents_together_equal_documents_alone(bert: Path) -> None:
    ours = embedder(bert, window_tokens=50, overlap_tokens=8, batch_tokens=100)
    docs = [document(ours, n, seed=n) for n in (1, 30, 4)]
    told: list[int] = []
    together = ours.embed_documents(docs, told.append)
    assert sum(told) == sum(len(d.encoding) for d in docs)
    assert len(told) > 3
    for doc, found in zip(docs, together, strict=True):
        (alone,) = ours.embed_documents([doc])
        np.testing.assert_allclose(found.units, alone.units, atol=1e-6)
        np.testing.assert_allclose(found.passages, alone.passages, atol=1e-6)


def test_a_word_in_many_parts_and_a_document_without_chunks(bert: Path) -> None:
    ours = embedder(bert)
    text = "the duck swims. " + "é" * 5000 + " on a lake."
    doc = chunk(Document("t", text), ours.encode(text), SIZES)
    empty = chunk(Document("t", " \n"), ours.encode(" \n"), SIZES)
    found, nothing = ours.embed_documents([doc, empty])
    assert found.units.shape == (len(doc.units), 32)
    np.testing.assert_allclose(np.linalg.norm(found.passages, axis=1), 1, atol=1e-5)
    assert nothing.units.shape == nothing.passages.shape == (0, 32)


def test_text_without_tokens_is_refused_by_name(bert: Path) -> None:
    ours = embedder(bert)
    text = "something"
    doc = chunk(Document("Minutes", text), Encoding(np.empty(0, np.int32), np.empty((0, 2), np.int32)), SIZES)
    with pytest.raises(EmbeddingError, match="Minutes"):
        ours.embed_documents([doc])
    with pytest.raises(EmbeddingError, match="no tokens"):
        ours.embed_queries([" \n"])


def test_nan_is_refused_naming_the_chunk(make_model: Make) -> None:
    from safetensors.torch import load_file, save_file

    path = make_model()
    weights = load_file(path / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][8] = float("nan")  # "rent"
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    ours = embedder(path, unit_late=0, passage_late=0)
    text = "the duck swims on a lake. the tenant pays rent."
    doc = chunk(Document("Lease", text), ours.encode(text), SIZES)
    with pytest.raises(
        EmbeddingError, match=r"unit 1 of 'Lease' \('the tenant pays rent\.'|passage 0 of 'Lease'"
    ):
        ours.embed_documents([doc])


def test_a_model_that_is_not_mean_pooled_is_refused_unless_allowed(make_model: Make) -> None:
    path = make_model(pooling={"pooling_mode_cls_token": True})
    with pytest.raises(ConfigurationError, match=r"'cls'.*sentence_transformer"):
        embedder(path)
    embedder(path, passage_late=0, unit_late=0)
    allowed = embedder(path, allow_pooling_mismatch=True)
    (found,) = allowed.embed_documents([document(allowed, 5)])
    assert np.isfinite(found.units).all()


def test_windows_that_cannot_be_are_refused(bert: Path) -> None:
    with pytest.raises(ConfigurationError, match="545 exceeds the 544"):
        embedder(bert, window_tokens=545)
    with pytest.raises(ConfigurationError, match="overlap_tokens=40"):
        embedder(bert, window_tokens=64, overlap_tokens=40)


def test_every_setting_that_moves_vectors_is_in_the_fingerprint(bert: Path) -> None:
    texts = {
        str(embedder(bert, **options).fingerprint)
        for options in (
            {},
            {"window_tokens": 128},
            {"overlap_tokens": 16},
            {"passage_late": 0.25},
            {"unit_late": 0.25},
            {"passage_title": 0},
            {"unit_title": 0.1},
            {"document_prompt": "passage: "},
            {"query_prompt": "query: "},
        )
    }
    assert len(texts) == 9
    assert str(embedder(bert, batch_tokens=64).fingerprint) in texts


@given(st.integers(0, 5000), st.integers(8, 600), st.data())
def test_windows_keep_every_token_once(tokens: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, (size - 1) // 2))
    plan = windows(tokens, size, overlap)
    kept = [t for w in plan for t in range(w.keep_start, w.keep_stop)]
    assert kept == list(range(tokens))
    for w in plan:
        assert w.start <= w.keep_start < w.keep_stop <= w.stop
        assert w.stop - w.start <= size
    for a, b in pairwise(plan):
        assert a.stop - b.start >= overlap
    assert len(plan) <= max(1, -(-(tokens - overlap) // (size - overlap)))

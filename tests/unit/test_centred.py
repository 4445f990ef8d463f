"""All-but-the-top: what is taken away, that it is decided once, and that an index never meets another."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from api.build import open_longleaf
from api.settings import load_settings
from embedders import centred, hashing
from embedders._fitted import Statistics
from pipeline import plugins
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import ConfigurationError, EmbeddingError, FingerprintMismatchError, StorageError
from pipeline.ingest import Source
from pipeline.types import ChunkedDocument, Document, Query

WORDS = [
    "tenant",
    "pays",
    "rent",
    "duck",
    "swims",
    "lake",
    "roof",
    "owner",
    "court",
    "law",
    "glass",
    "iron",
    "river",
    "stone",
]


def document(embedder, sentences: int, seed: int = 0) -> ChunkedDocument:
    rng = np.random.default_rng(seed)
    text = " ".join(" ".join(rng.choice(WORDS, 6)).capitalize() + "." for _ in range(sentences))
    return chunk(Document("Lease", text), embedder.encode(text), ChunkConfig(24, 8, 4))


def test_mean_and_strongest_directions_are_gone() -> None:
    """Mu and Viswanath 2018, algorithm 1, with numpy's own singular vectors."""
    rng = np.random.default_rng(0)
    shared, tops = rng.normal(size=16), np.linalg.qr(rng.normal(size=(16, 3)))[0].T
    vectors = shared + rng.normal(size=(4000, 3)) * 9 @ tops + rng.normal(size=(4000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = centred.common(vectors, 3)
    rest = vectors - vectors.mean(0) * 4000 / 4100
    _, _, axes = np.linalg.svd(rest, full_matrices=False)
    overlap = np.abs(np.linalg.svd(found.directions @ axes[:3].T)[1])
    np.testing.assert_allclose(overlap, 1, atol=1e-4)  # the same space
    left = rest - rest @ axes[:3].T @ axes[:3]
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    np.testing.assert_allclose(found.apply(vectors, "x"), left, atol=2e-3)
    assert abs(found.apply(vectors, "x").mean()) < 0.01


def test_few_vectors_decide_little() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(30, 16)).astype(np.float32)
    found = centred.common(vectors, 16)
    assert len(found.directions) == 0
    np.testing.assert_allclose(found.mean, vectors.mean(0) * 30 / 130, atol=1e-6)
    assert len(centred.common(rng.normal(size=(4000, 16)).astype(np.float32), 16).directions) == 8


def test_the_first_documents_decide_and_later_ones_change_nothing(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=128))
    first = centred.CentredEmbedder(inner, 4, tmp_path)
    doc, other = document(first, 120), document(first, 80, seed=2)
    (found,) = first.learn([doc])
    (raw,) = inner.embed_documents([doc])
    assert np.linalg.norm(found.units.mean(0)) < np.linalg.norm(raw.units.mean(0)) / 1.5
    first.learn([other])
    again = centred.CentredEmbedder(inner, 4, tmp_path)  # another process, later
    assert again.fingerprint == first.fingerprint != inner.fingerprint
    (later,) = again.embed_documents([doc])
    np.testing.assert_array_equal(later.units, found.units)
    np.testing.assert_array_equal(
        again.embed_queries(["rent"]).vectors, first.embed_queries(["rent"]).vectors
    )
    fresh = centred.CentredEmbedder(inner, 4, tmp_path / "other")
    assert fresh.fingerprint != first.fingerprint


def test_a_search_process_finds_what_an_ingesting_one_wrote(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=128))
    searching, ingesting = (centred.CentredEmbedder(inner, 2, tmp_path) for _ in range(2))
    with pytest.raises(EmbeddingError, match="not learnt yet"):
        searching.embed_queries(["rent"])
    ingesting.learn([document(ingesting, 100)])
    assert searching.embed_queries(["rent"]).vectors.shape == (1, 128)


def test_statistics_that_are_damaged_or_leave_nothing(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=128))
    embedder = centred.CentredEmbedder(inner, 2, tmp_path)
    embedder.learn([document(embedder, 100)])
    next(tmp_path.glob("statistics-*.npz")).write_bytes(b"not a zip")
    with pytest.raises(StorageError, match="cannot be read"):
        centred.CentredEmbedder(inner, 2, tmp_path).embed_queries(["rent"])
    nothing = Statistics(np.ones(4, np.float32), np.empty((0, 4), np.float32), np.empty(0, np.float32), 9)
    with pytest.raises(EmbeddingError, match="Nothing is left of a vector of 'Lease'"):
        nothing.apply(np.ones((1, 4), np.float32), "'Lease'")
    with pytest.raises(ConfigurationError, match="cannot wrap"):
        plugins.load("embedders", "centred", inner="centred")
    with pytest.raises(ConfigurationError, match="no option 'dmi'"):
        plugins.load("embedders", "centred", inner="hashing", options={"dmi": 64})


def test_from_ingestion_to_search_over_restarts(tmp_path: Path) -> None:
    options = {"name": "centred", "inner": "hashing", "options": {"dim": 128}, "directions": 2}
    settings = load_settings({"data": tmp_path, "embedder": options, "indexer": {"name": "exact"}})
    text = "The tenant pays rent. " * 3 + "A duck swims on the lake."
    with open_longleaf(settings) as longleaf:
        assert [r.status for r in longleaf.ingestor.ingest([Source(name="a", text=text)])] == ["created"]
    with open_longleaf(settings) as longleaf:
        more = [Source(name="b", text="The court hears the owner of the glass roof.")]
        assert [r.status for r in longleaf.ingestor.ingest(more)] == ["created"]
        (hit,) = longleaf.retriever.search(Query("Which court hears owners?", top_k=1)).hits
        assert hit.title == "b"
    shutil.rmtree(tmp_path / "embedder")
    with open_longleaf(settings) as longleaf, pytest.raises(FingerprintMismatchError):
        longleaf.retriever.search(Query("court"))
